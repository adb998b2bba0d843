"""The contact decision: a threshold for each customer's value against one threshold, and the served decision."""
