"""The images that the components run in: one a component, all with one tag. A release changes ``TAG``."""

REGISTRY = "ghcr.io/alfamix"
TAG = "0.1.0"


def image(component: str) -> str:
    """Return the image of a component."""
    return f"{REGISTRY}/alfamix-{component}:{TAG}"
