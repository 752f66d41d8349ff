"""Callbacks that record a study elsewhere, one file each; see :class:`autolora.Callback`."""
