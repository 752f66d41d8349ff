"""The registered variants: this package's, those of installed packages, and those that a reference names.

Another package offers a variant by an entry point of the group ``autolora.variants``, which names an instance or a
subclass of :class:`~autolora.variants.base.Variant`, or a module that registers some when it is imported::

    [project.entry-points."autolora.variants"]
    my_variant = "my_package.module:MyVariant"

Entry points are loaded when all names are asked for, or one that is not known yet: importing this module stays light.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterable
from importlib import metadata
from threading import Lock, RLock
from types import ModuleType

from autolora import references
from autolora.adapters.errors import VariantError
from autolora.errors import closest
from autolora.variants.base import Variant

GROUP = "autolora.variants"
"""Of the entry points by which other packages offer variants."""
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
"""A variant's name is that of a folder in the run directory, and the first part of ``space.options``' keys."""

_ADVICE = {
    references.Malformed: ", as in my_package.module:MyVariant",
    references.NoModule: ". Install the package, or run in the folder that holds the module",
    references.Broken: ". Fix the module",
    references.NoAttribute: ". Name an attribute of the module that is a Variant",
}
"""By what is wrong with a reference."""

_variants: dict[str, Variant] = {}
_modules: dict[str, str] = {}
"""By variant, the module that registered it."""
_resolved: dict[str, Variant] = {}
"""By reference, see :func:`resolve`."""
_adding = Lock()
"""Held while the registry changes and never while a module is imported, which may register variants itself."""
_loading = RLock()
_loaded = False


def register(variant: Variant) -> Variant:
    """Add a variant to the registry and return it.

    Registering the same declaration again, as a module does that is imported twice, changes nothing: the variant that
    is registered already is returned.

    Raises:
        VariantError: another variant has the name, or it has none that can be used, no title or no paper.
    """
    return _add(variant, sys._getframe(1).f_globals.get("__name__", "?"))


def get(name: str) -> Variant:
    """The registered variant of that name; raises ``VariantError`` listing what there is."""
    if name not in _variants:
        _load_entry_points()
    if name not in _variants:
        close = closest(name, _variants)
        hint = f"did you mean {close!r}? " if close else ""
        raise VariantError(f"unknown variant {name!r}: {hint}registered are {', '.join(names())}")
    return _variants[name]


def names() -> list[str]:
    """All registered names, plain LoRA first, the others in alphabetical order.

    A package whose entry point cannot be loaded is left out, with a warning that names it.
    """
    _load_entry_points()
    with _adding:
        return sorted(_variants, key=lambda name: (name != "lora", name))


def simple(among: Iterable[str]) -> list[str]:
    """Of these, the variants that are as simple to use as plain LoRA.

    They need nothing to start with, and leave as a plain LoRA of their own rank. What is not registered here does not
    count.
    """
    known = names()
    found = ((name, get(name)) for name in among if name in known)
    return [name for name, variant in found if not variant.needs and variant.export_form == "rank r"]


def resolve(reference: str) -> Variant:
    """The variant of a registered name, or of a reference ``"package.module:attribute"``, which is registered.

    The module is imported with the working directory on the path. The attribute is an instance of
    :class:`~autolora.variants.base.Variant`, or a subclass that can be made without arguments. The same reference
    always gives the same variant.

    Raises:
        VariantError: the name is not registered, or taken by another variant; the module cannot be imported, has no
            such attribute, or the attribute is not a variant.
    """
    if ":" not in reference:
        return get(reference)
    if reference not in _resolved:
        _resolved[reference] = _imported(reference)
    return _resolved[reference]


def _imported(reference: str) -> Variant:
    what = f"variant {reference!r}"
    try:
        found = references.named(reference)
    except references.ReferenceFault as fault:
        if isinstance(fault.__cause__, VariantError):  # of what the module registers itself
            raise fault.__cause__ from None
        raise VariantError(f"{what}: {fault}{_ADVICE[type(fault)]}") from fault
    return _registered(found, reference.partition(":")[0], what)


def _registered(found: object, module: str, what: str) -> Variant:
    """The registered variant of an instance or a subclass.

    Args:
        found: what was named.
        module: where it was.
        what: named it, for errors.
    """
    if isinstance(found, type) and issubclass(found, Variant):
        kind = found
        try:
            found = kind()  # type: ignore[call-arg]
        except TypeError as error:
            raise VariantError(
                f"{what}: {kind.__name__} cannot be made without arguments ({error}). Give its fields defaults, or "
                "name an instance"
            ) from error
    if not isinstance(found, Variant):
        raise VariantError(
            f"{what} is {type(found).__name__} {found!r:.80}. Name an instance or a subclass of "
            "autolora.variants.Variant"
        )
    return _add(found, module)


def _add(variant: Variant, module: str) -> Variant:
    """Register a variant on behalf of a module."""
    _check(variant, module)
    with _adding:
        known = _variants.get(variant.name)
        if known is None:
            _variants[variant.name], _modules[variant.name] = variant, module
            return variant
    if _same(known, variant):
        return known
    raise VariantError(
        f"a variant named {variant.name!r} is registered already, by {_origin(known, _modules[variant.name])}; "
        f"{_origin(variant, module)} wants the name, too: rename one of them, or uninstall its package"
    )


def _check(variant: Variant, module: str) -> None:
    """Raise ``VariantError`` if a variant lacks what every one is listed and stored by."""
    if not isinstance(variant.name, str) or not NAME.fullmatch(variant.name):
        raise VariantError(
            f"{_origin(variant, module)} has the name {variant.name!r}: begin it with a letter, and use letters, "
            "digits, - and _ alone"
        )
    for fact in ("title", "paper"):
        value = getattr(variant, fact)
        if not isinstance(value, str) or not value.strip():
            raise VariantError(f"{_origin(variant, module)} has the {fact} {value!r}: say in words what it is")


def _load_entry_points() -> None:
    """Register what installed packages offer; once in a process."""
    global _loaded
    with _loading:
        if _loaded:
            return
        _loaded = True  # first: what is imported below may ask for names itself
        for point in sorted(metadata.entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
            package = point.dist.name if point.dist is not None else point.value
            # One broken package must not hide the variants of all others.
            try:
                _load(point)
            except (Exception, SystemExit) as error:
                warnings.warn(
                    f"the variant {point.name!r} of package {package} ({point.value}) cannot be loaded and is left "
                    f"out: {error or repr(error)}. Update or uninstall the package",
                    stacklevel=3,
                )


def _load(point: metadata.EntryPoint) -> None:
    found = point.load()
    if not isinstance(found, ModuleType):  # a module registers what it has when it is imported
        _registered(found, point.module, f"entry point {point.name!r}")


def _same(one: Variant, other: Variant) -> bool:
    """Whether two are one declaration, though their classes may come from two imports of one module."""
    kinds = [(type(variant).__module__, type(variant).__qualname__) for variant in (one, other)]
    return kinds[0] == kinds[1] and vars(one) == vars(other)


def _origin(variant: Variant, module: str) -> str:
    """A variant's class, the module that registered it, and the installed package that this is of."""
    packages = metadata.packages_distributions().get(module.partition(".")[0], [])
    where = f"package {packages[0]} (module {module})" if packages else f"module {module}"
    return f"{type(variant).__qualname__} of {where}"
