"""Directories that no model can be loaded from are named with the file that is wrong."""

from __future__ import annotations

import json
import shutil

import pytest

from autolora import bases
from autolora.bases.pretrained import load_config, load_tokenizer
from tests.support.checkpoints import WEIGHTS, reconfigured, saved, tiny
from tests.support.specs import small_spec


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("whole"), tiny())


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def refused(path, message):
    with pytest.raises(bases.ModelError, match=message):
        bases.load(small_spec(model=str(path)))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (WEIGHTS, b"", r"model\.safetensors is damaged"),
        (WEIGHTS, b"version https://git-lfs.github.com/spec/v1\n", r"model\.safetensors is a Git LFS pointer"),
        ("config.json", b"{no json", r"config\.json is damaged \(Expecting property name"),
        ("config.json", b"\xff\xfe{", r"config\.json is damaged \('utf-8' codec"),
        ("config.json", b"[]", r"config\.json holds list, not an object"),
        ("tokenizer.json", b"no json", r"tokenizer\.json is damaged"),
        ("tokenizer.json", b"{}", r"cannot load AutoTokenizer"),
    ],
)
def test_a_damaged_file_is_named(folder, file, content, message):
    (folder / file).write_bytes(content)
    refused(folder, message)


def test_a_file_of_weights_that_was_cut_is_named(folder):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])
    refused(folder, r"model\.safetensors is damaged \(.*copy or download it again")


def test_old_weights_that_are_damaged_are_named(folder):
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"no pickle")
    refused(folder, r"pytorch_model\.bin is damaged")


def test_a_shard_that_is_not_there_is_named(folder):
    (folder / WEIGHTS).unlink()
    tiny().save_pretrained(folder, max_shard_size="20KB")
    shard = sorted(folder.glob("model-*"))[1]
    shard.unlink()
    refused(folder, rf"1 of the files that model\.safetensors\.index\.json names are not there \({shard.name}\)")


def test_shards_without_their_index_are_named(folder):
    (folder / WEIGHTS).unlink()
    tiny().save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors.index.json").unlink()
    refused(folder, r"model\.safetensors\.index\.json is not there, which says what each model-\*-of-\*")


@pytest.mark.parametrize(
    "settings", [{"hidden_size": "wide"}, {"num_attention_heads": 0}, {"model_type": "unheard-of"}]
)
def test_a_configuration_of_nonsense_is_refused(folder, settings):
    refused(reconfigured(folder, **settings), "cannot load Auto(Config|ModelForCausalLM) from the directory")


def test_a_directory_without_a_tokenizer_is_refused(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    refused(folder, r"tokenizer\.json is not there")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "it is empty"),
        (["model.gguf"], "GGUF files are for inference"),
        (["consolidated.00.pth", "params.json"], "consolidated files are the authors' own format"),
        (["checkpoint-10/config.json", "trainer_state.json"], r"give one of the checkpoint-\.\.\. folders"),
    ],
)
def test_a_directory_of_something_else_is_described(tmp_path, files, message):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    refused(tmp_path, message)


def test_a_file_instead_of_a_directory_is_described(folder):
    gguf = folder / "model-Q4.gguf"
    gguf.write_bytes(b"GGUF")
    refused(gguf, "is a GGUF file, which is for inference")
    refused(folder / WEIGHTS, "is a file: give the directory around it")


def test_a_model_object_that_comes_from_nowhere_has_no_tokenizer():
    with pytest.raises(bases.ModelError, match="not loaded from anywhere, so its tokenizer is not known"):
        bases.load(small_spec(model=tiny()))


def test_a_model_beside_an_adapter_is_ambiguous(folder):
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "x"}))
    refused(folder, "holds a model and an adapter")


def test_the_tokenizer_and_the_configuration_are_read_without_weights(folder):
    (folder / WEIGHTS).unlink()
    spec = small_spec(model=str(folder))
    assert load_config(spec).hidden_size == 32
    assert load_tokenizer(spec).eos_token_id == 256


def test_a_programming_error_is_chained_to_what_is_said(folder):
    with pytest.raises(bases.ModelError) as caught:
        bases.load(small_spec(model=str(reconfigured(folder, num_attention_heads=0))))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
