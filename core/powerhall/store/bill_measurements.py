"""Measurements of bills, a point a day: what dashboards add up over any range. Rules of the fields: schema.py."""

from powerhall.store.measurement import Field, Measurement

__all__ = ["BILL_MEASUREMENTS"]

_AMOUNTS = (
    Field("gpu_h", "h", "GPU hours held"),
    Field("it_j", "J", "IT energy"),
    Field("energy_j", "J", "energy at the meter: IT with its part of cooling and losses"),
    Field("cost", "currency", "cost of the energy that has a price; absent where none of it has"),
    Field("co2_kg", "kg", "CO2 of the energy that has a carbon intensity; absent where none of it has"),
    Field("water_l", "l", "water of the cooling plants"),
    Field("unpriced_j", "J", "part of energy_j without a price"),
    Field("unmetered_j", "J", "IT energy of jobs in gaps of the meter; in no other field"),
)

BILL_MEASUREMENTS = (
    Measurement(
        "bill_day",
        "a day of the site's bill, at the day's start in the site's time; a day that was billed anew is overwritten",
        ("site", "level", "name"),
        _AMOUNTS,
        86_400.0,
        "history",
    ),
    Measurement(
        "bill_top",
        "the jobs and the users with the most energy of a day, in that order of rows; names are fields",
        ("site", "level", "row"),
        (
            Field("job", "", "job id; - in the rows of users", is_text=True),
            Field("user_hash", "", "salted hash of the user", is_text=True),
            Field("project", "", "project", is_text=True),
            Field("tenant", "", "tenant", is_text=True),
            *_AMOUNTS,
        ),
        86_400.0,
        "history",
    ),
    Measurement(
        "bill_meter",
        "a day of the site's meter: the sum of all lines of the bill, what of it jobs are billed for, and its gaps",
        ("site",),
        (
            *_AMOUNTS,
            Field("billed_j", "J", "part of energy_j that jobs are billed for"),
            Field("gap_h", "h", "hall hours without a meter; nothing is billed in them"),
        ),
        86_400.0,
        "history",
    ),
    Measurement(
        "bill_peak",
        "the highest mean power of a day that counts for a demand charge; the highest of a month is what it is for",
        ("site", "charge"),
        (
            Field("power_w", "W", "mean power over the charge's interval"),
            Field("cost", "currency", "what the charge is if it is the month's highest"),
        ),
        86_400.0,
        "history",
    ),
)
