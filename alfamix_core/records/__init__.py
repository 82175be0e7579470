"""Every file format of alfamix: a pydantic model or a table schema, with its reader and its writer."""
