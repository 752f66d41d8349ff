"""The fixtures that tests of adapters and of variants share."""

from tests.support.variant_fixtures import build, difference, fingerprint, logits, one_thread, tokens, train

__all__ = ["build", "difference", "fingerprint", "logits", "one_thread", "tokens", "train"]
