"""The round's pipeline, the engines that run it, and the `alfamix` command."""
