"""How good churn probabilities are: metrics, their intervals, plots of both. Pure functions of y and p."""
