"""The stages of a round, each a container: component.py is what Kubeflow sees, stage.py is the work."""
