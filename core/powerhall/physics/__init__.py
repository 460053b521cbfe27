"""Physics of the site: cooling plants and weather."""
