"""Rows and columns of the engine's arrays. Few arrays keep argument lists and compilation short."""

RACK_FIRST, RACK_ZONES, RACK_HALL, RACK_TYPE = range(4)
"""Rows of `Layout.racks`: first node, first of its zones in `rack_zone`, hall, type."""
HALL_FIRST, HALL_PLANTS, HALL_ZONE, HALL_RANK = range(4)
"""Rows of `Layout.halls`: first rack, first plant, zone, place by name."""
SERVES, CAPACITY, RATED, PUMP, FAN, COMPRESSOR, HAS_TABLE, UNITS, LEAST = range(9)
"""Columns of `PlantCurves.numbers`; `SERVES` is 0 for all, 1 for liquid, 2 for air; powers in W."""
POOL_FREE, POOL_WHOLE, POOL_NW = range(3)
"""Rows of `Occupancy.pools`: free GPUs, nodes with every GPU free, planned IT power."""
(
    GPUS,
    CLS,
    FAMILY,
    RANK,
    ID_RANK,
    PREEMPTIBLE,
    STATUS,
    STOPS,
    HALL,
    KIND,
    MODE,
    PLAN_NW,
    DRAW_NW,
    NODE_FIRST,
    NODE_COUNT,
    RUNNING_LIST,
    RUNNING_AT,
    WAITING_LIST,
) = range(18)
"""Rows of `JobArrays.ints`. Jobs of one `FAMILY` are of one class and may use the same halls and types. `RANK` is the
place in the queue, `ID_RANK` that of the id among all; `PLAN_NW` and `DRAW_NW` are what a GPU adds to an idle node;
`RUNNING_LIST` and `WAITING_LIST` are lists of jobs."""
DURATION, CHECKPOINT, LEFT, UPDATED, BEGAN, STARTED, ENDED, WORKED, SPEED, END_S, LOST, RUN_LEFT = range(12)
"""Rows of `JobArrays.floats`: s, work in s at the fastest mode's speed; `LEFT` holds at `UPDATED`; `BEGAN` is the start
of the present run and `STARTED` of the first, NaN before; `END_S` is the end of the present run; `WORKED` is all work,
of which `LOST` was lost by stops and failures; `RUN_LEFT` is what was left when the present run began."""
FUTURE, WAITING, RUNNING, DONE = range(4)
"""Values of `STATUS`."""
N_RUNNING, N_WAITING, VERSION, BUDGETS = range(4)
"""Places in `JobArrays.sizes`: lengths of lists, how often something became free, how often limits changed."""
