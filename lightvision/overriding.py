"""params.yaml as `dvc exp run -S` would write it, at a tenth of its time: a sweep has a thousand points.

DVC parses and writes the whole file for each. Here its sections are written apart and kept, since points share most.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

from ruamel.yaml.comments import CommentedMap

from stages.core.running.errors import Refusal

Group = tuple[str, ...]  # sections that are written together


@lru_cache(maxsize=64)
def text(original: str, sets: tuple[str, ...]) -> str:
    return _file(original).text(sets)


class File:
    def __init__(self, original: str) -> None:
        from dvc.utils.collections import to_omegaconf
        from dvc.utils.serialize import parse_yaml_for_update

        self._original = original
        self._comments = cast(CommentedMap, parse_yaml_for_update(original, "params.yaml"))
        self._values = cast(dict[str, Any], to_omegaconf(self._comments))
        self._written: dict[tuple[Group, str], str] = {}
        whole, alone = tuple(self._comments), [(name,) for name in self._comments]
        as_it_is = self._changed(())
        self._groups = [whole]
        together = self._joined(as_it_is)
        self._groups = alone
        if self._joined(as_it_is) != together:  # an anchor, whose alias is in another section
            self._groups = [whole]

    def text(self, sets: Sequence[str]) -> str:
        return self._joined(self._changed(sets))

    def _changed(self, sets: Sequence[str]) -> dict[str, Any]:
        """Only sections that are overridden go through Hydra, unless values refer to each other."""
        from dvc.utils.hydra import to_hydra_overrides
        from hydra._internal.config_loader_impl import ConfigLoaderImpl
        from hydra.errors import ConfigCompositionException, OverrideParseException
        from omegaconf import DictConfig, OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        try:
            overrides = to_hydra_overrides(list(sets))
            touched = {override.key_or_group.partition(".")[0] for override in overrides}
            if any("${" in text for text in (self._original, *sets)):
                touched |= self._values.keys()
            sections = {name: section for name, section in self._values.items() if name in touched}
            config = DictConfig(sections, flags={"allow_objects": True})
            OmegaConf.set_struct(config, value=True)
            ConfigLoaderImpl._apply_overrides_to_config(overrides, config)
            changed = cast(dict[str, Any], OmegaConf.to_object(config))
        except (ConfigCompositionException, OverrideParseException, OmegaConfBaseException) as error:
            raise Refusal(f"{error}: write it as `dvc exp run -S` takes it") from error
        kept = {name: section for name, section in self._values.items() if name in changed or name not in touched}
        return kept | changed

    def _joined(self, changed: Mapping[str, Any]) -> str:
        new = [(name,) for name in changed if name not in self._comments]
        return "".join(self._group(group, changed) for group in [*self._groups, *new])

    def _group(self, group: Group, changed: Mapping[str, Any]) -> str:
        sections = {name: changed[name] for name in group if name in changed}
        known = (group, json.dumps(sections, default=str))
        if known not in self._written:
            self._written[known] = self._dump(sections, group) if sections else ""
        return self._written[known]

    def _dump(self, sections: dict[str, Any], group: Group) -> str:
        """As DVC merges and dumps."""
        from dvc.utils.collections import merge_dicts, remove_missing_keys
        from dvc.utils.serialize import dumps_yaml

        part = self._comments.copy()
        for other in self._comments.keys() - set(group):
            del part[other]
        part = copy.deepcopy(part)
        merge_dicts(part, sections)
        remove_missing_keys(part, sections)
        if group[0] != next(iter(self._comments)):
            part.ca.comment = None
        return dumps_yaml(part)


@lru_cache(maxsize=4)
def _file(original: str) -> File:
    return File(original)
