"""Stands in for axolotl's base of plugins."""


class BasePlugin:
    def register(self, cfg):
        pass

    def add_callbacks_pre_trainer(self, cfg, model):
        return []
