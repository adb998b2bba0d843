"""Names of what is stored with a registered model and in its bundle."""

BUNDLE_FOLDER = "bundle"
MODEL_FILE = "model.onnx"
DECISION_FILE = "decision.json"
CARD_FILE = "model_card.md"
TRAINING_PROFILE_FILE = "training_profile.json"
SIGNATURE_FILE = "model.sig"
