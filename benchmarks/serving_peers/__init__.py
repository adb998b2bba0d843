"""The services that ours is compared with, and the code that starts and loads them."""
