"""Compiled kernels of the solver: the loops over jobs, options and slots that numpy cannot express.

* `kernel_arrays`: arrays of the kernels: shapes, units, scales.
* `decision_value`: the value of one decision and of a whole schedule.
* `pricing`: the best decision of every job at given prices (the subproblem of the Lagrangian relaxation).
* `fill_prices`: prices that follow the fill of each resource.
* `insertion`: serial schedule generation; one job after the other takes the best decision that fits.
* `destroy_repair`: the moves of the large neighbourhood search.

Energy is not part of a decision's value in here: the energy cost of a profile is added to its price, so that one
difference of two prefix sums charges energy and resources together.

Feasibility needs no check at the end: a kernel places a job only where every resource has enough left in every slot,
and books it at once.
"""
