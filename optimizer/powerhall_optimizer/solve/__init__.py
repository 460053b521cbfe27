"""The solver: from a problem to a schedule with a proved bound.

`pipeline` runs the stages in order: `repair` of the previous plan, Lagrangian `prices` (the bound), `price_greedy`,
`neighbourhood_search` and, for small problems, `cp_sat_exact`, for large ones `cp_sat_windows`. Each stage can run
alone (`stage`). `presolve` prepares the arrays, `kernels` holds the compiled loops; `coarse_grid` plans far slots in
long steps, `child_process` guards a solve, and `density_greedy` is the fallback without a solver.
"""
