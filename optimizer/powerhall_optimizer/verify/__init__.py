"""The independent checker: recomputes everything about a plan from plan.json and checks it, without the planner's code.

The package imports powerhall core (plan file, site, curves of losses and cooling), numpy and msgspec, and no other part
of the optimizer; import-linter and a test that runs a copy of this folder alone hold that. Contents:

* `plan` and `multi_site`: all checks of one site, and between sites: each job in one plan, where its data may be.
* `jobs`, `nodes`, `power`: eligibility, residency, modes, times; gangs, running jobs, GPUs per node; budgets, cooling,
  ramps, the plan's own figures of its zones. `case` is what they work on.
* `sheds`: a running job stops only where a limit needs it, in the order of the docs.
* `loads`: power and heat per zone and slot in W by the true convex curves, compared with the limits to half a W.
* `storage`: contents of storage units in J as exact fractions from their powers, and every limit of a unit.
* `capacities`: the integer model's capacities, in whole GPUs and W per slot, rounded down, on straight lines that lie
  above the convex curves.
* `options`: the options of each job; usage rounded up, values in whole units, each term rounded once.
* `bound` and `storage_terms`: the bound that the certificate's prices prove (weak Lagrangian duality), exactly.
* `value`: value and bound of a plan from all of these.

The planner has its own code for the same model (`powerhall_optimizer.problem`, `.storage`, `.physics`). That the two
agree to the last unit is tested on random sites, queues and plans; the duplication is what makes the check independent.
"""
