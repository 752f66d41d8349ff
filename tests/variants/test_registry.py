"""The registry: names, references, and variants of other packages."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
import textwrap
import warnings

import pytest

from autolora.variants import Variant, VariantError, get, names, register, registry, resolve

DECLARATION = """
from dataclasses import dataclass

from autolora.variants import Variant, register


@dataclass(frozen=True)
class Halved(Variant):
    name: str = "{name}"
    title: str = "Halved"
    paper: str = "-"
    share: float = 0.5

    def initialize(self, start):
        for layer in start.layers.values():
            layer.a.data.mul_(self.share)


instance = Halved(name="{name}_twin")
"""
REGISTERS = """

register(Halved(name="{name}_registered"))
"""


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A registry that forgets what a test adds, before any entry point was loaded; and an import system that does."""
    monkeypatch.setattr(registry, "_variants", dict(registry._variants))
    monkeypatch.setattr(registry, "_modules", dict(registry._modules))
    monkeypatch.setattr(registry, "_resolved", {})
    monkeypatch.setattr(registry, "_loaded", False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture
def package(fresh, tmp_path, monkeypatch):
    """``package(name, module=text, points={...})``: an installed package, its metadata as pip writes it."""

    def install(name, text, points):
        site = tmp_path / "site"
        folder = site / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        (folder / "declared.py").write_text(textwrap.dedent(text))
        info = site / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-dist\nVersion: 1.2\n")
        lines = [f"{point} = {value}" for point, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[autolora.variants]", *lines, ""]))
        (info / "top_level.txt").write_text(f"{name}\n")
        if str(site) not in sys.path:
            monkeypatch.syspath_prepend(site)
        importlib.invalidate_caches()
        return site

    return install


def test_unknown_name_suggests_a_close_one():
    with pytest.raises(VariantError, match="did you mean 'pissa'"):
        get("pisa")


class TestRegister:
    def test_a_taken_name_says_by_whom_and_who_wanted_it(self):
        taken = r"'lora' is registered already, by .*autolora\.variants\.lora.*; .*test_registry.* wants the name"
        with pytest.raises(VariantError, match=taken):
            register(Variant(name="lora", title="LoRA", paper="another"))

    def test_two_classes_of_one_module_are_both_named(self, fresh):
        class First(Variant):
            pass

        class Second(Variant):
            pass

        register(First(name="mine", title="First", paper="-"))
        with pytest.raises(VariantError, match=r"already, by .*First of module .*; .*Second of module .* wants"):
            register(Second(name="mine", title="Second", paper="-"))

    @pytest.mark.parametrize(
        "name", ["", "../../escaped", "my.variant", "my:variant", "my variant", "1st", "a\n", None]
    )
    def test_a_name_that_is_no_word_is_refused(self, fresh, name):
        with pytest.raises(VariantError, match=r"^Variant of module .*test_registry has the name .*begin it with"):
            register(Variant(name=name, title="Mine", paper="-"))
        assert name not in registry._variants

    @pytest.mark.parametrize("name", ["a", "LoRA-2", "my_variant"])
    def test_a_name_that_is_a_word_is_taken(self, fresh, name):
        assert get(register(Variant(name=name, title="Mine", paper="-")).name).title == "Mine"

    @pytest.mark.parametrize("fact", ["title", "paper"])
    @pytest.mark.parametrize("value", ["", " ", None])
    def test_a_title_and_a_paper_are_asked_for(self, fresh, fact, value):
        facts = {"title": "Mine", "paper": "-", fact: value}
        with pytest.raises(VariantError, match=rf"^Variant of module .*test_registry has the {fact} {value!r}: say"):
            register(Variant(name="mine", **facts))

    def test_the_same_declaration_again_changes_nothing(self):
        lora = get("lora")
        assert register(dataclasses.replace(lora)) is lora
        assert get("lora") is lora

    def test_the_same_name_with_another_fact_is_refused(self):
        with pytest.raises(VariantError, match="registered already"):
            register(dataclasses.replace(get("lora"), cost=2.0))

    def test_a_module_that_is_imported_twice_registers_once(self, fresh, tmp_path):
        (tmp_path / "again.py").write_text((DECLARATION + REGISTERS).format(name="again"))
        sys.path.insert(0, str(tmp_path))
        first = importlib.import_module("again")
        known = get("again_registered")
        del sys.modules["again"]
        second = importlib.import_module("again")
        assert second.Halved is not first.Halved
        assert get("again_registered") is known


class TestResolve:
    def test_a_plain_name_is_the_registered_one(self):
        assert resolve("pissa") is get("pissa")
        with pytest.raises(VariantError, match="did you mean 'pissa'"):
            resolve("pisa")

    @pytest.mark.parametrize(
        ("attribute", "name"), [("Halved", "mine"), ("instance", "mine_twin"), ("Holder.inner", "mine_held")]
    )
    def test_a_reference_is_imported_from_the_working_directory_and_registered(self, fresh, tmp_path, attribute, name):
        holder = '\n\nclass Holder:\n    inner = Halved(name="mine_held")\n'
        (tmp_path / "mine.py").write_text(DECLARATION.format(name="mine") + holder)
        variant = resolve(f"mine:{attribute}")
        assert variant.name == name
        assert variant.options == {"share": 0.5}
        assert get(name) is variant
        assert name in names()
        assert resolve(f"mine:{attribute}") is variant

    def test_what_its_module_registers_itself_is_the_same_one(self, fresh, tmp_path):
        text = DECLARATION.format(name="mine") + "\n\nregister(instance)\n"
        (tmp_path / "mine.py").write_text(text)
        assert resolve("mine:instance") is get("mine_twin")

    def test_it_can_be_trained(self, fresh, tmp_path, build, train):
        (tmp_path / "mine.py").write_text(DECLARATION.format(name="mine"))
        variant = resolve("mine:Halved").configured(share=0.25)
        model = variant.attach(build(), rank=4, alpha=4)
        losses = train(model, variant.optimizer(model, 1e-2), 4)
        assert losses[-1] < losses[0]

    @pytest.mark.parametrize(
        ("reference", "message"),
        [
            ("absent.module:Mine", r"'absent\.module:Mine': No module named 'absent'.*Install the package, or run in"),
            ("mine:Absent", r"'mine:Absent': mine has no 'Absent'\. Name an attribute"),
            ("mine:dataclass", r"'mine:dataclass' is function .*Name an instance or a subclass of autolora"),
            ("mine:Variant", r"'mine:Variant': Variant cannot be made without arguments .*Give its fields defaults"),
            ("broken:Mine", r"'broken:Mine': importing broken failed \(ZeroDivisionError.*Fix the module"),
            ("ends:Mine", r"'ends:Mine': importing ends failed \(SystemExit\(1\)\)\. Fix the module"),
            ("mine:", r"'mine:': write package\.module:attribute"),
            (":Mine", r"':Mine': write package\.module:attribute"),
        ],
    )
    def test_what_is_not_there_is_said_by_reference(self, fresh, tmp_path, reference, message):
        (tmp_path / "mine.py").write_text(DECLARATION.format(name="mine"))
        (tmp_path / "broken.py").write_text("1 / 0\n")
        (tmp_path / "ends.py").write_text("raise SystemExit(1)\n")
        before = names()
        with pytest.raises(VariantError, match=message):
            resolve(reference)
        assert names() == before

    def test_what_its_module_cannot_register_is_said_as_it_is(self, fresh, tmp_path):
        text = DECLARATION.format(name="mine") + '\n\nregister(Halved(name="pissa"))\n'
        (tmp_path / "mine.py").write_text(text)
        with pytest.raises(VariantError, match=r"^a variant named 'pissa' is registered already"):
            resolve("mine:Halved")

    def test_a_reference_to_a_taken_name_is_refused(self, fresh, tmp_path):
        (tmp_path / "mine.py").write_text(DECLARATION.format(name="pissa"))
        with pytest.raises(VariantError, match=r"'pissa' is registered already, by .*autolora.*module mine wants"):
            resolve("mine:Halved")


class TestEntryPoints:
    @pytest.mark.parametrize(
        ("value", "offered"),
        [
            ("other.declared:Halved", {"other"}),
            ("other.declared:instance", {"other_twin"}),
            ("other.declared", {"other_registered"}),
        ],
    )
    def test_a_package_offers_an_instance_a_subclass_or_a_module(self, package, value, offered):
        text = DECLARATION + (REGISTERS if value == "other.declared" else "")
        package("other", text.format(name="other"), {"other": value})
        before = set(registry._variants)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert set(names()) - before == offered
        (name,) = offered
        assert get(name).title == "Halved"

    def test_it_is_loaded_when_an_unknown_name_is_asked_for_and_not_before(self, package):
        package("other", DECLARATION.format(name="other"), {"other": "other.declared:Halved"})
        assert get("pissa").name == "pissa"
        assert "other.declared" not in sys.modules
        assert get("other").name == "other"

    def test_an_entry_point_and_a_reference_to_the_same_are_one(self, package):
        package("other", DECLARATION.format(name="other"), {"other": "other.declared:Halved"})
        variant = resolve("other.declared:Halved")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert "other" in names()
        assert get("other") is variant

    @pytest.mark.parametrize(
        ("text", "value", "message"),
        [
            ("1 / 0", "other.declared:Halved", "division by zero"),
            ("raise SystemExit('no GPU')", "other.declared", "no GPU"),
            ("import absent_library", "other.declared", "absent_library"),
            ("Halved = 3", "other.declared:Halved", "is int 3"),
            ("", "other.declared:Absent", "Absent"),
            (DECLARATION.format(name="lora"), "other.declared:Halved", "'lora' is registered already"),
            (
                DECLARATION.format(name="../out"),
                "other.declared:Halved",
                r"Halved of package other-dist \(module other\.declared\) has the name '\.\./out'",
            ),
        ],
    )
    def test_a_broken_package_is_left_out_with_a_warning_that_names_it(self, package, text, value, message):
        package("other", text, {"halved": value})
        package("sound", DECLARATION.format(name="sound"), {"sound": "sound.declared:Halved"})
        before = set(registry._variants)
        with pytest.warns(UserWarning, match=rf"'halved' of package other-dist \({value}\).*{message}") as caught:
            assert set(names()) - before == {"sound"}
        assert len(caught) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # said once
            assert "lora" in names()

    def test_two_packages_with_one_name_are_both_named(self, package):
        for name in ("first", "second"):
            package(name, DECLARATION.format(name="theirs"), {"theirs": f"{name}.declared:Halved"})
        with pytest.warns(
            UserWarning,
            match=r"package second-dist .*by Halved of package first-dist \(module first\.declared\); "
            r"Halved of package second-dist \(module second\.declared\) wants",
        ):
            names()
        assert type(get("theirs")).__module__ == "first.declared"

    def test_another_process_lists_it_without_loading_torch(self, package, tmp_path):
        site = package("other", DECLARATION.format(name="other"), {"other": "other.declared:Halved"})
        program = """
        import json, sys
        import autolora
        light = [name for name in ("torch", "peft", "other") if name in sys.modules]
        variants = autolora.variants
        imported = [name for name in ("torch", "peft", "other") if name in sys.modules]
        listed = "other" in variants.names()
        heavy = [name for name in ("torch", "peft") if name in sys.modules]
        print(json.dumps([light, imported, listed, heavy, variants.get("other").options]))
        """
        path = os.pathsep.join([str(site), *(part for part in sys.path if part)])
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            env={**os.environ, "PYTHONPATH": path},
            check=True,
            capture_output=True,
            text=True,
        )
        assert json.loads(done.stdout) == [[], [], True, [], {"share": 0.5}]

    def test_the_command_line_lists_it(self, package):
        site = package("other", DECLARATION.format(name="other"), {"other": "other.declared:Halved"})
        path = os.pathsep.join([str(site), *(part for part in sys.path if part)])
        done = subprocess.run(
            [sys.executable, "-c", "from autolora.cli import main; main()", "variants", "other"],
            env={**os.environ, "PYTHONPATH": path},
            check=True,
            capture_output=True,
            text=True,
        )
        assert "Halved" in done.stdout


def test_registry_imports_neither_torch_nor_peft():
    code = "import sys, autolora.variants as v; v.names(); print([m for m in ('torch', 'peft') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
