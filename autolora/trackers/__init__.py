"""Callbacks that write a study down elsewhere, a file each; see :class:`autolora.Callback`."""
