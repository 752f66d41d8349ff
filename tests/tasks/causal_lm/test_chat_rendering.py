"""What of a conversation reaches the model: tools, tool calls, parts, thoughts; and what a template leaves out."""

from __future__ import annotations

import pytest

from autolora.tasks.causal_lm.chat.template import Template
from autolora.tasks.causal_lm.chat.turns import EARLIER_THOUGHTS, LAST_THOUGHTS, REWRITTEN, Renderer
from autolora.tasks.causal_lm.examples import Chat
from autolora.tasks.data.errors import DataError

LOOP = "{% for m in messages %}"
HEAD = "<|im_start|>{{ m.role }}\n"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
ARGUMENTS = "c.function.arguments | tojson"
CALLS = "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }} {{ " + ARGUMENTS + " }}</call>{% endfor %}"
TOOLS = "{% if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}"
CALLING = TOOLS + LOOP + HEAD + "{{ m.content or '' }}" + CALLS + "<|im_end|>\n{% endfor %}" + PROMPT
PLAIN = LOOP + HEAD + "{{ m.content }}<|im_end|>\n{% endfor %}" + PROMPT
PARTS = LOOP + HEAD + "{% for part in m.content %}{{ part.text }}{% endfor %}<|im_end|>\n{% endfor %}" + PROMPT
THOUGHT = "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
# drops the thoughts of earlier answers, as GLM does
LAST_THOUGHT = (
    LOOP + HEAD + "{% if loop.last %}" + THOUGHT + "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}" + PROMPT
)
# without an end marker
OPEN = (
    LOOP
    + "{{ m.role }}: {{ m.content or '' }}"
    + CALLS
    + "\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def call(arguments, content=None):
    function = {"name": "weather", "arguments": arguments}
    return assistant(content, tool_calls=[{"id": "call00001", "type": "function", "function": function}])


@pytest.fixture
def dialogue(make_tokenizer):
    """The rendered conversation, with a tokenizer that has this template."""

    def dialogue(template, messages, tools=None, unlearned=()):
        tokenizer = make_tokenizer(chat_template=template, eos="<|im_end|>")
        return Renderer(Template(tokenizer)).dialogue(Chat(messages, tools, frozenset(unlearned)), "rows, row 1")

    return dialogue


@pytest.fixture
def learned(dialogue):
    def learned(*args, **kwargs):
        found = dialogue(*args, **kwargs)
        return [found.text[turn.start : turn.end] for turn in found.turns]

    return learned


def test_tools_reach_the_template(dialogue):
    assert "Weather of a city" in dialogue(CALLING, [user("Oslo?"), call({"city": "Oslo"})], [WEATHER]).text


def test_a_conversation_without_calls_shows_its_tools_too(dialogue):
    assert "Weather of a city" in dialogue(CALLING, [user("Hi"), assistant("Hello")], [WEATHER]).text


def test_a_named_template_for_tools_is_used_for_tools_alone(dialogue, learned):
    named = {"default": PLAIN, "tool_use": "with tools\n" + CALLING}
    assert dialogue(named, [user("Hi"), assistant("Hello")], [WEATHER]).text.startswith("with tools\n")
    assert learned(named, [user("Hi"), assistant("Hello")]) == ["Hello<|im_end|>"]


@pytest.mark.parametrize(
    ("template", "messages", "tools", "what"),
    [
        (PLAIN, [user("Hi"), assistant("Hello")], [WEATHER], r"row 1: the chat template leaves out the tools; use a"),
        (
            PLAIN,
            [user("Hi"), call({"city": "Oslo"}, "")],
            None,
            r"messages\[1\] \(assistant\): .*out the tool calls; use",
        ),
        (
            LOOP + "{% if m.role != 'developer' %}" + HEAD + "{{ m.content }}<|im_end|>{% endif %}{% endfor %}",
            [{"role": "developer", "content": "s"}, user("Is this so?"), assistant("It is")],
            None,
            r"messages\[0\] \(developer\): the chat template leaves out 's'; rename the role 'developer'",
        ),
        (
            # as Mistral Nemo, which writes the system message into the last message if that is the user's
            LOOP + "{% if m.role == 'user' and loop.last %}{{ messages[0].content }}{% endif %}"
            "{% if m.role != 'system' %}" + HEAD + "{{ m.content }}<|im_end|>{% endif %}{% endfor %}",
            [{"role": "system", "content": "Be brief"}, user("Hi"), assistant("Hello")],
            None,
            r"messages\[0\] \(system\): the chat template leaves out 'Be brief'; put it at the beginning of the",
        ),
        (
            # as Llama 3.1, which writes the call alone
            LOOP
            + HEAD
            + "{% if m.tool_calls %}"
            + CALLS
            + "{% else %}{{ m.content }}{% endif %}<|im_end|>{% endfor %}",
            [user("Oslo?"), call({"city": "Oslo"}, "Let me see")],
            None,
            r"messages\[1\] \(assistant\): the chat template leaves out 'Let me see'; remove the text beside",
        ),
    ],
    ids=["tools", "calls", "role", "system", "text beside calls"],
)
def test_what_a_template_leaves_out_is_an_error_that_says_what_to_do(dialogue, template, messages, tools, what):
    with pytest.raises(DataError, match=what):
        dialogue(template, messages, tools)


def test_texts_are_found_however_the_template_writes_them(dialogue):
    template = LOOP + HEAD + "{{ m.content | trim | tojson }}<|im_end|>{% endfor %}"
    assert dialogue(template, [user('  "a"\n\tb\\ '), assistant(" é\n ")]).turns


@pytest.mark.parametrize("arguments", [{"city": "Oslo"}, {}, {"places": [{"city": "Oslo", "days": 2}]}])
def test_a_conversation_that_ends_in_a_call_ends_as_the_template_ends_it(dialogue, make_tokenizer, arguments):
    messages = [user("Oslo?"), call(arguments)]
    text = make_tokenizer(chat_template=CALLING).apply_chat_template(messages, tokenize=False)
    found = dialogue(CALLING, messages)
    assert found.text == text
    assert found.text[found.turns[-1].start :] == text[text.index("<call>") :]


def test_an_empty_last_answer_gets_no_second_end(dialogue, learned):
    assert learned(PLAIN, [user("Hi"), assistant("")]) == ["<|im_end|>"]
    assert dialogue(PLAIN, [user("Hi"), assistant("")]).text.count("<|im_end|>") == 2


@pytest.mark.parametrize("message", [call({"city": "Oslo"}), assistant("Hello"), assistant("")])
def test_a_template_without_end_marker_gets_one_end_whatever_the_turn_is(dialogue, message):
    assert dialogue(OPEN, [user("Oslo?"), message]).text.count("<|im_end|>") == 1


def test_arguments_are_text_where_the_template_joins_texts(learned):
    template = LOOP + HEAD + "{{ m.content or '' }}" + CALLS.replace(ARGUMENTS, "'' + c.function.arguments")
    assert learned(template + "<|im_end|>{% endfor %}", [user("Oslo?"), call({"city": "Osló"})])[0].endswith(
        'weather {"city": "Osló"}</call><|im_end|>'
    )


def test_a_call_has_empty_content_where_the_template_needs_one(learned):
    template = LOOP + HEAD + "{{ '' + m.content }}" + CALLS + "<|im_end|>{% endfor %}" + PROMPT
    assert learned(template, [user("Oslo?"), call({"city": "Oslo"})])[0].startswith("<call>")


@pytest.mark.parametrize("content", ["Hello", [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]])
@pytest.mark.parametrize("template", [PLAIN, PARTS])
def test_content_is_text_or_parts_as_the_template_wants_it(learned, template, content):
    assert learned(template, [user("Hi"), assistant(content)]) == ["Hello<|im_end|>"]


def test_turns_that_are_not_to_be_learned_are_masked(learned):
    messages = [user("Hi"), assistant("wrong"), user("No"), assistant("right")]
    assert learned(PLAIN, messages, unlearned=[1]) == ["right<|im_end|>"]
    assert learned(PLAIN, messages, unlearned=[3]) == ["wrong<|im_end|>"]


def test_turns_that_are_not_to_be_learned_are_masked_with_marks(learned):
    marked = LOOP + HEAD + "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
    template = marked + "{% else %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
    messages = [user("Hi"), assistant("one"), user("No"), assistant("two"), user("So"), assistant("three")]
    assert learned(template, messages, unlearned=[3]) == ["one<|im_end|>", "three<|im_end|>"]


def test_all_turns_masked_is_a_reason(dialogue):
    assert "marked as not to be learned" in dialogue(PLAIN, [user("Hi"), assistant("wrong")], unlearned=[1]).reason


def test_another_end_of_the_last_turn(learned):
    template = LOOP + HEAD + "{{ m.content }}{{ '<|return|>' if loop.last else '<|end|>' }}{% endfor %}" + PROMPT
    messages = [user("1"), assistant("one"), user("2"), assistant("two")]
    assert learned(template, messages) == ["one<|end|>", "two<|return|>"]


def test_another_end_of_the_last_turn_in_words(learned):
    template = LOOP + "{{ m.role }}: {{ m.content }} {{ 'DONE' if loop.last else 'NEXT' }}\n{% endfor %}"
    prompt = "{% if add_generation_prompt %}assistant: {% endif %}"
    messages = [user("1"), assistant("one"), user("2"), assistant("one")]
    assert learned(template + prompt, messages) == ["one NEXT", "one DONE"]


def test_thoughts_of_earlier_answers_that_are_dropped_are_counted(dialogue, learned):
    messages = [
        user("1"),
        assistant("one", reasoning_content="hm"),
        user("2"),
        assistant("two", reasoning_content="so"),
    ]
    assert learned(LAST_THOUGHT, messages) == ["one<|im_end|>", "<think>so</think>two<|im_end|>"]
    assert dialogue(LAST_THOUGHT, messages).left_out == {EARLIER_THOUGHTS: 1}


@pytest.mark.parametrize("thought", [{"reasoning_content": "hm"}, {"thinking": "hm"}, {}])
def test_a_thought_that_is_dropped_in_the_learned_turn_is_counted(dialogue, thought):
    template = LOOP + HEAD + "{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}" + PROMPT
    text = "one" if thought else "<think>hm</think>one"
    assert dialogue(template, [user("1"), assistant(text, **thought)]).left_out == {LAST_THOUGHTS: 1}


def test_an_earlier_answer_that_begins_otherwise_is_written_as_the_last(dialogue, learned):
    # as Qwen 3
    template = (
        LOOP + HEAD + "{% if m.role == 'assistant' and loop.last %}<think>{{ m.reasoning_content or '' }}</think>"
        "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}" + PROMPT
    )
    messages = [user("1"), assistant("one", reasoning_content="hm"), user("2"), assistant("two")]
    assert learned(template, messages) == ["<think>hm</think>one<|im_end|>", "<think></think>two<|im_end|>"]
    assert not dialogue(template, messages).left_out
    assert learned(template, messages, unlearned=[1]) == ["<think></think>two<|im_end|>"]


def test_a_template_that_writes_on_after_the_answer_is_a_reason(dialogue):
    template = LOOP + HEAD + "{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
    assert "writes more behind the last answer" in dialogue(template, [user("1"), assistant("one")]).reason


def test_an_error_of_the_template_itself_is_a_reason(dialogue):
    template = LOOP + "{% if m.role == 'tool' %}{{ m.content + 1 }}{% endif %}" + HEAD + "{{ m.content }}{% endfor %}"
    messages = [user("1"), {"role": "tool", "content": "x"}, assistant("one")]
    assert dialogue(template, messages).reason.startswith("the chat template refuses the conversation: can only")


@pytest.mark.parametrize(
    "part", [{"type": "image", "url": "x.png"}, {"type": "image"}, {"type": "audio", "audio": "x"}]
)
def test_a_part_that_is_no_text_is_an_error(dialogue, part):
    with pytest.raises(DataError, match=r"row 1, messages\[0\] \(user\): .* is not text, and this task trains on text"):
        dialogue(PARTS, [user([part, {"type": "text", "text": "What is this?"}]), assistant("A cat")])


def test_templates_without_a_default_are_a_reason(dialogue):
    assert "multiple chat templates" in dialogue({"rag": PLAIN, "other": PLAIN}, [user("1"), assistant("one")]).reason


@pytest.mark.parametrize("call", ["strftime_now('%H:%M:%S.%f')", 'strftime_now( "%S %f" )'])
def test_turns_are_found_behind_a_clock(learned, call):
    exchange = [user("now?"), assistant("one"), user("and now?"), assistant("two")]
    assert learned("{{ " + call + " }}" + PLAIN, exchange) == ["one<|im_end|>", "two<|im_end|>"]


@pytest.mark.parametrize("form", ["m.content[:20]", "m.content.split('Final: ')[-1]"])
def test_a_template_that_keeps_a_part_of_a_text_is_counted(dialogue, form):
    template = PLAIN.replace("m.content", form)
    messages = [user("1"), assistant("It is odd, since 3 is odd. Final: yes, it is odd")]
    assert dialogue(template, messages).left_out == {REWRITTEN: 1}


@pytest.mark.parametrize("form", ["m.content | trim", "m.content | upper", "m.content | e", "m.content | tojson"])
def test_another_way_to_write_all_of_a_text_is_not(dialogue, form):
    template = PLAIN.replace("m.content", form)
    assert not dialogue(template, [user('<1> \n"é" & 2'), assistant(" It's <odd>\n")]).left_out
