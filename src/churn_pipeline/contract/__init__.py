"""The contract of a customer table: written once per table in conf, enforced from the file to the model's inputs."""
