"""Conversations: which characters the assistant is taught."""

import pytest

from autolora.tasks.data.errors import DataError

TALK = [
    {"role": "system", "content": "sys"},
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "ONE"},
    {"role": "user", "content": "two"},
    {"role": "assistant", "content": "TWO"},
]
EVAL = [{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "X"}]}]
LOOP = "{% for m in messages %}"
# like Qwen 3: the last answer is rendered with a thinking block, earlier ones without
THINKING = (
    LOOP + "<|im_start|>{{ m['role'] }}\n{% if loop.last and m['role'] == 'assistant' %}<think></think>{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# like Phi 3: the conversation is closed with a token of its own
CLOSING = (
    LOOP + "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% else %}{{ eos_token }}{% endif %}"
)
MARKED = (
    "{{ bos_token }}"
    + LOOP
    + "{% if m['role'] == 'assistant' %}A:{% generation %}{{ m['content'] }}!{% endgeneration %}"
    "{% else %}U:{{ m['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
)
PLAIN = LOOP + "{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
# the number of messages goes in front, so that no rendering begins like a longer one
REWRITING = "{{ messages | length }}" + LOOP + "{{ m['content'] }}{% endfor %}"


@pytest.fixture
def taught(prepare_rows, learned):
    def taught(tokenizer, messages=TALK):
        data = prepare_rows([{"messages": messages}], tokenizer=tokenizer, eval_rows=EVAL)
        return learned(tokenizer, data.train, 0)

    return taught


def test_only_the_assistants_turns_are_learned(taught, chat_tokenizer):
    assert taught(chat_tokenizer)[1] == "ONE<|im_end|>TWO<|im_end|>"


def test_the_text_is_what_the_template_renders(taught, chat_tokenizer):
    assert taught(chat_tokenizer)[0] == chat_tokenizer.apply_chat_template(TALK, tokenize=False)


def test_bos_of_the_template_is_not_doubled(taught, make_tokenizer):
    template = "{{ bos_token }}" + PLAIN
    text = taught(make_tokenizer(chat_template=template, adds_bos=True))[0]
    assert text.count("<s>") == 1


def test_earlier_turns_begin_as_the_last_one_does(taught, make_tokenizer):
    tokenizer = make_tokenizer(chat_template=THINKING, eos="<|im_end|>")
    assert taught(tokenizer)[1] == "<think></think>ONE<|im_end|><think></think>TWO<|im_end|>"


def test_a_token_that_closes_the_conversation_is_learned_once(taught, make_tokenizer):
    assert taught(make_tokenizer(chat_template=CLOSING))[1] == "ONE<|im_end|>TWO<|im_end|>\n</s>"


def test_marks_of_the_template_are_taken(taught, make_tokenizer):
    assert taught(make_tokenizer(chat_template=MARKED))[1] == "ONE!TWO!"


def test_a_template_without_end_marker_gets_eos(taught, make_tokenizer):
    assert taught(make_tokenizer(chat_template=PLAIN))[1] == "ONETWO</s>"


def test_turns_after_the_last_answer_are_left_out(taught, chat_tokenizer):
    text = taught(chat_tokenizer, [*TALK, {"role": "user", "content": "three"}])[0]
    assert "three" not in text


def test_a_conversation_may_begin_with_the_assistant(taught, chat_tokenizer):
    assert taught(chat_tokenizer, [TALK[2], *TALK[3:]])[1] == "ONE<|im_end|>TWO<|im_end|>"


def test_turns_are_found_although_no_rendering_begins_like_a_longer_one(taught, make_tokenizer):
    assert taught(make_tokenizer(chat_template=REWRITING))[1] == "ONETWO</s>"


def test_a_template_that_refuses_names_the_row(taught, make_tokenizer):
    template = "{% if messages | length > 2 %}{{ raise_exception('too many') }}{% endif %}" + PLAIN
    with pytest.raises(DataError, match=r"train.jsonl, row 1: the chat template refuses the conversation: too many"):
        taught(make_tokenizer(chat_template=template))


def test_one_row_that_the_template_refuses_is_counted(prepare_rows, make_tokenizer):
    template = "{% if messages | length > 2 %}{{ raise_exception('too many') }}{% endif %}" + PLAIN
    rows = [{"messages": TALK}, {"messages": [*TALK, *TALK]}, *[{"messages": TALK[1:3]}] * 2]
    data = prepare_rows(rows, tokenizer=make_tokenizer(chat_template=template), eval_rows=EVAL)
    report = data.report.splits["train"]
    assert (report.read, report.rows, report.unused) == (4, 2, 0)
    [(reason, (count, first))] = report.unlearnable.items()
    assert (reason, count) == ("the chat template refuses the conversation: too many", 2)
    assert first.endswith("train.jsonl, row 1")
    assert "2 not used" in data.report.lines()[0]


def test_a_tokenizer_without_template_is_an_error(taught, tokenizer):
    with pytest.raises(DataError, match=r"no chat template.*tokenizer.chat_template"):
        taught(tokenizer)


def test_a_conversation_without_assistant_is_an_error(taught, chat_tokenizer):
    with pytest.raises(DataError, match=r"row 1: no assistant turn"):
        taught(chat_tokenizer, TALK[:2])


def test_content_that_is_no_text_names_the_turn(taught, chat_tokenizer):
    with pytest.raises(DataError, match=r"train.jsonl, row 1, messages\[1\]: 'content' must be text, not 3"):
        taught(chat_tokenizer, [TALK[0], {"role": "user", "content": 3}])


def test_a_row_for_metrics_is_the_last_exchange(prepare_rows, chat_tokenizer):
    data = prepare_rows(EVAL, tokenizer=chat_tokenizer, eval_rows=[{"messages": TALK}])
    prompt = chat_tokenizer.apply_chat_template(TALK[:4], tokenize=False, add_generation_prompt=True)
    assert data.eval.rows == [{"prompt": prompt, "completion": "TWO"}]


def test_a_row_for_metrics_is_the_last_exchange_left_after_cutting(prepare_rows, chat_tokenizer):
    data = prepare_rows(EVAL, tokenizer=chat_tokenizer, eval_rows=[{"messages": TALK}], max_length=45)
    assert data.eval.rows[0]["completion"] == "ONE"


def test_sharegpt_roles_are_translated(prepare_rows, chat_tokenizer, learned):
    turns = [{"from": "human", "value": "one"}, {"from": "gpt", "value": "ONE"}]
    data = prepare_rows([{"conversations": turns}], tokenizer=chat_tokenizer, eval_rows=EVAL)
    assert learned(chat_tokenizer, data.train, 0) == (
        "<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\nONE<|im_end|>\n",
        "ONE<|im_end|>",
    )


def test_an_unknown_sharegpt_role_is_an_error(prepare_rows, chat_tokenizer):
    turns = [{"from": "narrator", "value": "one"}]
    with pytest.raises(DataError, match=r"row 1, conversations\[0\]: unknown from 'narrator'"):
        prepare_rows([{"conversations": turns}], tokenizer=chat_tokenizer, eval_rows=EVAL)


def test_masks_agree_without_character_offsets(taught, chat_tokenizer, make_tokenizer):
    slow = _WithoutOffsets(chat_tokenizer)
    assert taught(slow)[1] == taught(chat_tokenizer)[1]


class _WithoutOffsets:
    """A tokenizer written in Python, as far as the data layer can tell."""

    is_fast = False

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer

    def __call__(self, *args, **kwargs):
        return self._tokenizer(*args, **kwargs)

    def __len__(self):
        return len(self._tokenizer)

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)
