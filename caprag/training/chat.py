"""The chat template of a language model, taught to take pictures; and what ends a turn in it.

The template itself is left as it is: what is put before it turns a message of parts into one of text, a picture into
its token, and all else is the language model's own style. Knows no weights.
"""

from __future__ import annotations

from typing import Any

from jinja2 import TemplateError

from caprag.errors import ModelError

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + ' ' }}"
    "{% elif message['role'] == 'user' %}{{ 'USER: ' + message['content'] + ' ' }}"
    "{% else %}{{ 'ASSISTANT: ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""For a language model that has no template: the form of LLaVA-1.5, which asks for no tokens of its own.

References
----------
Liu et al., Improved Baselines with Visual Instruction Tuning, CVPR 2024; its conversations are Vicuna's, v1.
"""

_FLATTEN = (
    "{%- set flat = namespace(messages=[]) -%}"
    "{%- for message in messages -%}"
    "{%- if message['content'] is string or message['content'] is not iterable -%}"
    "{%- set flat.messages = flat.messages + [message] -%}"
    "{%- else -%}"
    "{%- set said = namespace(parts=[]) -%}"
    "{%- for part in message['content'] -%}"
    "{%- set said.parts = said.parts + [IMAGE if part['type'] == 'image' else part['text']] -%}"
    "{%- endfor -%}"
    "{%- set flat.messages = flat.messages + [dict(message, content=said.parts | join('\\n'))] -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    # An expression last: a line break with which the template begins is not swallowed after it.
    "{%- set messages = flat.messages -%}{{ '' }}"
)


def template_with_pictures(template: str, image_token: str) -> str:
    """Return a template that takes messages of text, and messages of parts.

    Parameters
    ----------
    template
        A language model's, for messages of text.
    image_token
        What stands for a part ``{"type": "image"}``. Parts are joined by line breaks, so that a picture and a question
        read ``<image>``, line break, question, as LLaVA was trained.

    Returns
    -------
    str
        Renders messages of text as `template` does.
    """
    return _FLATTEN.replace("IMAGE", repr(image_token)) + template


def own_template(tokenizer: Any) -> str | None:
    """Return a tokenizer's template for plain talk, ``None`` where it has none."""
    found = tokenizer.chat_template
    # Several by name: one for tools, one for documents.
    return found.get("default") if isinstance(found, dict) else found


def turn_end(tokenizer: Any, template: str) -> int | None:
    """Find the token that follows an answer.

    Returns
    -------
    int or None
        Its id; ``None`` where what follows is no token of the tokenizer's special ones, but text.

    Raises
    ------
    ModelError
        Where the template can't be rendered, or leaves the answer out.
    """
    answer = "caprag"
    talk = [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]
    try:
        text = str(tokenizer.apply_chat_template(talk, chat_template=template, tokenize=False))
    except TemplateError as error:
        raise ModelError(f"the chat template can't be rendered ({error}); mend it, or give another") from error
    _, found, after = text.rpartition(answer)
    if not found:
        raise ModelError("the chat template leaves out what the assistant says; mend it, or give another")
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    first = tokenizer(after.lstrip(), add_special_tokens=False)["input_ids"][:1]
    return int(first[0]) if first and first[0] in special else None
