"""The services that ours is measured beside, and what starts and asks them."""
