"""File names of the documents that accompany a registered model and its bundle."""

CARD_FILE = "model_card.md"
TRAINING_PROFILE_FILE = "training_profile.json"
