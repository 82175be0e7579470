"""The images that the components run in: one for each, all with one tag. A release changes ``TAG``.

    python -m components.images

prints every image that is built: a name of a build target in Dockerfiles/ and the image's name.
"""

from components.stages import STAGES

REGISTRY = "ghcr.io/alfamix"
TAG = "0.1.0"
COMPONENTS = tuple(STAGES)
TRIGGER = "trigger"
"""No component: the `alfamix` command for a cluster, which watches a project and starts runs."""


def image(component: str) -> str:
    """Return the image of a component, or of the trigger."""
    return f"{REGISTRY}/alfamix-{component}:{TAG}"


if __name__ == "__main__":
    for name in (*COMPONENTS, TRIGGER):
        print(name, image(name))
