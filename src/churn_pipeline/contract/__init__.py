"""The customer table's contract: written once per table in conf, enforced from the file to the model's inputs."""
