"""YAML of plain values alone, read in bounded time and memory, as a stranger may have written it.

PyYAML's loaders build whatever a text asks for: dates, sets, bytes, and, by aliases, lists that a
few lines make as large as all memory. A run's config has none of these.
"""

from collections.abc import Callable, Iterator
from typing import Any

import yaml

_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SCALARS = yaml.SafeLoader("")
_TAG = "tag:yaml.org,2002:"
_BUILDERS: dict[str, Callable[[yaml.ScalarNode], Any]] = {
    f"{_TAG}null": _SCALARS.construct_yaml_null,
    f"{_TAG}bool": _SCALARS.construct_yaml_bool,
    f"{_TAG}int": _SCALARS.construct_yaml_int,
    f"{_TAG}float": _SCALARS.construct_yaml_float,
    f"{_TAG}str": _SCALARS.construct_yaml_str,
}
_COLLECTIONS = (None, "!", f"{_TAG}map", f"{_TAG}seq")
_MOST_EVENTS = 10_000
_DEEPEST = 20
_LONGEST_NAME = 200
_LONGEST_NUMBER = 100

Events = Iterator[yaml.Event]


def read_plain_yaml(text: str) -> Any:
    """Read one YAML document of dictionaries, lists, texts, numbers, true, false and null.

    Raises:
        ValueError: naming the line, if it is no YAML, has anything else in it, refers to itself, or
            is larger than any config.
    """
    events = _checked(yaml.parse(text, Loader=_PARSER))
    try:
        for _ in ("stream", "document"):  # which begin
            next(events)
        value = _value_of(events, next(events), depth=0)
        next(events)
        if not isinstance(next(events), yaml.StreamEndEvent):
            raise ValueError("it has more than one document")
    except StopIteration:
        raise ValueError("it is empty") from None
    except yaml.YAMLError as error:
        line = _line_of(getattr(error, "problem_mark", None))
        reason = getattr(error, "problem", None) or getattr(error, "reason", None)
        raise ValueError(f"it is not YAML ({reason}{line})") from error
    return value


def _checked(events: Events) -> Events:
    """Let events through one by one; neither too many, nor one that repeats others."""
    for number, event in enumerate(events):
        if number > _MOST_EVENTS:
            raise ValueError("it has more values than a config")
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"it repeats a part by an alias{_line_of(event.start_mark)}")
        yield event


def _value_of(events: Events, event: yaml.Event, depth: int) -> Any:
    if depth > _DEEPEST:
        raise ValueError(f"it is nested too deeply{_line_of(event.start_mark)}")
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event)
    if getattr(event, "tag", None) not in _COLLECTIONS:
        raise _not_plain(event)
    if isinstance(event, yaml.SequenceStartEvent):
        items = _until(yaml.SequenceEndEvent, events)
        return [_value_of(events, item, depth + 1) for item in items]
    if isinstance(event, yaml.MappingStartEvent):
        names = _until(yaml.MappingEndEvent, events)
        return {_name(name): _value_of(events, next(events), depth + 1) for name in names}
    raise ValueError("it is empty")


def _until(end: type[yaml.Event], events: Events) -> Events:
    for event in events:
        if isinstance(event, end):
            return
        yield event


def _name(event: yaml.Event) -> str:
    if not isinstance(event, yaml.ScalarEvent):
        raise ValueError(f"it has a name that is no text{_line_of(event.start_mark)}")
    name = str(_scalar(event))
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise ValueError(f"it has a name that no option has{_line_of(event.start_mark)}")
    return name


def _scalar(event: yaml.ScalarEvent) -> Any:
    tag = event.tag or _SCALARS.resolve(yaml.ScalarNode, event.value, event.implicit)
    build = _BUILDERS.get(f"{_TAG}str" if tag == "!" else tag)
    if build is None:
        raise _not_plain(event)
    if tag in (f"{_TAG}int", f"{_TAG}float") and len(event.value) > _LONGEST_NUMBER:
        raise ValueError(f"it has a number that is too long{_line_of(event.start_mark)}")
    try:
        return build(yaml.ScalarNode(tag, event.value))
    except (ValueError, KeyError, IndexError) as error:  # such as !!int three
        raise _not_plain(event) from error


def _not_plain(event: yaml.Event) -> ValueError:
    return ValueError(
        f"it has a value that is no text, number, list or dictionary{_line_of(event.start_mark)}"
    )


def _line_of(mark: Any) -> str:
    return "" if mark is None else f", line {mark.line + 1}"
