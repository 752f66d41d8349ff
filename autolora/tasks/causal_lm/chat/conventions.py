"""What another trainer learns with chat templates for which it ships a version with ``{% generation %}`` marks.

TRL replaces some published templates by training versions of its own when it learns answers only. What these mark,
beside what is learned with any template, is written down here, so that a setting found here is right there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Convention:
    """What of a template's text is learned beside the turn as it is generated, and its end marker.

    Attributes:
        openings: texts that stand directly before a turn, of which one is learned if it is there.
        white_space: whether the white space that the template puts behind the end marker is learned.
        stop: what ends a turn that the template itself does not close; None: EOS, after the last turn.
        stop_after_calls: the same for a turn that calls tools.
    """

    openings: tuple[str, ...] = ()
    white_space: bool = False
    stop: str | None = None
    stop_after_calls: str | None = None

    def stop_after(self, calls: bool) -> str | None:
        """What ends a turn, which calls tools or does not."""
        return self.stop_after_calls if calls else self.stop

    def widened(self, text: str, start: int, end: int, calls: bool) -> tuple[int, int]:
        """[start, end) of a turn with what this convention adds around it."""
        opening = next((opening for opening in self.openings if text.endswith(opening, 0, start)), "")
        stop = self.stop_after(calls) or ""
        if stop and text.startswith(stop, end):
            end += len(stop)
        while self.white_space and end < len(text) and text[end].isspace():
            end += 1
        return start - len(opening), end


PLAIN = Convention()


def convention_of(template: str) -> Convention:
    """The convention of the trainer that ships a training version of this template; :data:`PLAIN` if none does."""
    return CONVENTIONS.get(digest(template), PLAIN)


def digest(template: str) -> str:
    """The first 16 hex digits of a template's SHA-256."""
    return hashlib.sha256(template.encode()).hexdigest()[:16]


_LINE = Convention(white_space=True)
_DEEPSEEK = Convention(openings=("<｜Assistant｜>", "<｜tool▁outputs▁end｜>"))
_CHANNELS = Convention(openings=("<|start|>assistant",))

# TRL 1.16.0; by digest of the published template, not of the training version. Those of Cohere, Llama 3 and LLaVA-NeXT
# learn what is learned anyway.
CONVENTIONS: dict[str, Convention] = {
    "56a1447ad31926fd": _DEEPSEEK,  # DeepSeek-R1 distilled
    "563b1ce7d61d50a9": _DEEPSEEK,  # DeepSeek-V3
    "9aeb7eac68ad87bb": _LINE,  # DiffusionGemma
    "ecd6ae513fe103f0": _LINE,  # Gemma, Gemma 2
    "7de1c58e208eda46": _LINE,  # Gemma 3
    "44f815868bf02fa4": Convention(stop="<|user|>", stop_after_calls="<|observation|>"),  # GLM-4-MoE
    "a4c9919cbbd4acdd": _CHANNELS,  # GPT-OSS
    "0d7e56ca41705b79": _LINE,  # Idefics3
    "cef187400d62a595": _LINE,  # LFM2
    "5504d163d879bfb6": _LINE,  # LFM2, second version
    "cfc67e5f349f3769": _CHANNELS,  # Muse Glimmer
    "58933db77d3099b4": _LINE,  # Nemotron 3.5 Lightning
    "ab7813c3abdd9cb6": _LINE,  # Nemotron 3 Nano
    "575fb74f54ed264d": _LINE,  # Nemotron 3 Super
    "82753bef5cedc493": _LINE,  # Nemotron 3 Ultra
    "dcaee66df77bfbb7": _LINE,  # Phi-3
    "78d976a442bcde2f": _LINE,  # Phi-3.5
    "cd8e9439f0570856": Convention(openings=("\n",), white_space=True),  # Qwen2.5
    "a0bc6f6fc7a29a80": _LINE,  # Qwen2.5-VL
    "a55ee1b1660128b7": _LINE,  # Qwen3
    "273d8e0e683b8850": _LINE,  # Qwen3.5, not thinking
    "a4aee8afcf2e0711": _LINE,  # Qwen3.5, thinking
    "e84f32a23fdda276": _LINE,  # Qwen3.6
    "c3cf9e34abf4f9e3": _LINE,  # Qwen3.8
    "64f85b198065d0fb": _LINE,  # Qwen3-Instruct-2507
    "3636d0f0bd6bef02": _LINE,  # Qwen3-VL
    "830005085ddd94ce": _LINE,  # SmolVLM
}
