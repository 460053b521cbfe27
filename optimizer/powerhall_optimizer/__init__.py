"""Plans which job runs where, when and at which power level, under power and cooling budgets."""
