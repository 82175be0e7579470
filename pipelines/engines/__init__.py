"""What runs a round: this machine, with or without containers, or a Kubeflow API."""
