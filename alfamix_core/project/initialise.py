"""Make a project."""

from alfamix_core.errors import InputError, ObjectExistsError
from alfamix_core.project import layout
from alfamix_core.records.project import Project, check_strategy
from alfamix_core.storage import Store


def initialise(store: Store, project: Project) -> None:
    """Write project.json, once.

    Raises:
        InputError: There is a project already, its strategy is unknown, or the store cannot write conditionally.
    """
    check_strategy(project.strategy)
    store.check_conditional_writes()
    try:
        store.create(layout.PROJECT, project.document())
    except ObjectExistsError:
        raise InputError(f"{store.uri} is a project already; edit its project.json instead") from None
