"""The text path against transformers used directly with Wan's cleaning; files of every layout; rows on disk, also of several processes."""

from __future__ import annotations

import html
import json
import multiprocessing
import re
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from echo.backbone.extras import need
from echo.backbone.load import DTYPES
from echo.backbone.parts import tokens, umt5
from echo.backbone.parts.umt5 import Umt5Text
from tests.helpers.compare import report

TEXTS = [
    "A  lanky ferry mechanic\t<slowly> tightens a valve &amp;amp; waits.\n",
    "Tea &amp;amp; cake for the cafÃ©â€™s owner &lt;waving&gt;",
    "Back in the same cramped engine room, the same lanky mechanic sits down beside the pipes and waits for the ferry.",
]
"""White space, entities escaped twice (ftfy leaves them alone beside a <), and text that was decoded wrongly."""

TO_WAN = (
    ("shared.", "token_embedding."), ("encoder.final_layer_norm.", "norm."), ("encoder.block.", "blocks."),
    (".layer.0.layer_norm.", ".norm1."), (".layer.1.layer_norm.", ".norm2."),
    (".layer.0.SelfAttention.relative_attention_bias.", ".pos_embedding.embedding."), (".layer.0.SelfAttention.", ".attn."),
    (".layer.1.DenseReluDense.wi_0.", ".ffn.gate.0."), (".layer.1.DenseReluDense.wi_1.", ".ffn.fc1."),
    (".layer.1.DenseReluDense.wo.", ".ffn.fc2."),
)  # fmt: skip


def wan_file(tensors: dict[str, torch.Tensor], path: Path) -> Path:
    """The encoder as Wan's release has it."""
    found = {}
    for name, value in tensors.items():
        for theirs, ours in TO_WAN:
            name = name.replace(theirs, ours)
        found[name] = value
    del found["encoder.embed_tokens.weight"]
    torch.save(found, path)
    return path


def torch_shards(tensors: dict[str, torch.Tensor], folder: Path) -> None:
    """Files with an index, as transformers saved them before safetensors."""
    folder.mkdir()
    names = [f"pytorch_model-{i + 1:05d}-of-00003.bin" for i in range(3)]
    held = {name: names[i % 3] for i, name in enumerate(tensors)}
    for file in names:
        torch.save({name: value for name, value in tensors.items() if held[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": held}))
    (folder / "config.json").write_text(json.dumps({"architectures": ["UMT5ForConditionalGeneration"]}))


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A trained tokenizer and one tiny encoder, as Wan, transformers (in shards) and diffusers (a pipeline) save it."""
    tokenizers, transformers = need("tokenizers"), need("transformers")
    folder = tmp_path_factory.mktemp("umt5")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(TEXTS * 3, tokenizers.trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>"))
    found = [(piece, round(score, 3)) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"]]
    pieces = [*found[: len(special)], *sorted(found[len(special) :])]  # training numbers them otherwise each time
    tokenizer.model = tokenizers.models.Unigram(pieces, unk_id=special.index("<unk>"))
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    (folder / "tokenizer").mkdir()
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
    torch.manual_seed(5)
    config = transformers.UMT5Config(
        vocab_size=128, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=3, dropout_rate=0.0, feed_forward_proj="gated-gelu"
    )
    model = transformers.UMT5EncoderModel(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "relative" in name or "norm" in name:
                weight.add_(torch.randn(weight.shape))
    model.save_pretrained(folder / "shards", max_shard_size="20KB")
    model.save_pretrained(folder / "pipeline" / "text_encoder")
    wan_file(model.state_dict(), folder / "models_t5_umt5-xxl-enc-bf16.pth")
    whole = transformers.UMT5ForConditionalGeneration(config)
    whole.load_state_dict(model.state_dict(), strict=False)
    whole.save_pretrained(folder / "whole")
    torch_shards(whole.state_dict(), folder / "torch_shards")
    assert len(list((folder / "shards").glob("*.safetensors"))) > 1
    return folder


def directly(files: Path, texts: list[str]) -> torch.Tensor:
    """Rows by transformers' own encoder and tokenizer, cleaned, padded and zeroed as Wan's code does."""
    transformers, ftfy = need("transformers"), need("ftfy")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(files / "tokenizer" / "tokenizer.json"), pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    model = transformers.UMT5EncoderModel.from_pretrained(files / "pipeline" / "text_encoder").eval()
    cleaned = [re.sub(r"\s+", " ", html.unescape(html.unescape(ftfy.fix_text(text))).strip()).strip() for text in texts]
    batch = tokenizer(cleaned, return_tensors="pt", padding="max_length", truncation=True, max_length=512, add_special_tokens=True)
    with torch.no_grad():
        out = model(batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
    return out * batch.attention_mask[..., None]


def loaded(files: Path, cache: Path, name: str = "models_t5_umt5-xxl-enc-bf16.pth", **changes) -> Umt5Text:
    settings = {"identity": "tiny", "dtype": "float32", **changes}
    return Umt5Text.load(files / name, files / "tokenizer", cache=cache, **settings)


@pytest.mark.parametrize("name", ["models_t5_umt5-xxl-enc-bf16.pth", "shards", "pipeline", "whole", "torch_shards"])
def test_rows_are_those_of_transformers_with_wans_cleaning(name, files, tmp_path):
    text = loaded(files, tmp_path, name)
    ours, theirs = text.encode(TEXTS), directly(files, TEXTS)
    assert ours.shape == (3, 512, 32) and text.text_dim == 32
    assert (ours - theirs).abs().max() < 1e-4, report(ours, theirs)
    lengths = (ours.abs().sum(-1) > 0).sum(-1)
    assert len(set(lengths.tolist())) == 3 and lengths.max() < 512
    assert text.loads == 1


def test_cleaning_and_padding_matter(files):
    """What the comparison above would miss if it compared too little."""
    theirs = directly(files, TEXTS)
    dirty = directly(files, [TEXTS[1].replace("&amp;amp;", "&")])
    assert torch.equal(dirty[0], theirs[1])
    assert not torch.equal(directly(files, [TEXTS[1].replace("Ã©", "e")])[0], theirs[1])


def test_rows_on_disk_need_no_encoder(files, tmp_path):
    first = loaded(files, tmp_path)
    rows = first.encode(TEXTS[:2])
    second = loaded(files, tmp_path)
    again = second.encode([f"  {TEXTS[1]} ", TEXTS[0]])
    assert torch.equal(again, rows[[1, 0]]), report(again, rows[[1, 0]])
    assert (first.loads, second.loads) == (1, 0)
    second.prepare(TEXTS)
    assert second.loads == 1 and second._encoder is not None
    second.release()
    assert second._encoder is None
    assert torch.equal(second.encode(TEXTS)[:2], rows) and second.loads == 1
    assert len(list(tmp_path.rglob("*.safetensors"))) == 3
    assert not list(tmp_path.rglob("*.part"))


def test_rows_are_kept_by_all_that_decides_them(files, tmp_path, monkeypatch):
    loaded(files, tmp_path).prepare(TEXTS[:1])
    for count, changes in enumerate(({"identity": "other"}, {"dtype": "bfloat16"}, {"text_len": 64}), 2):
        other = loaded(files, tmp_path, **changes)
        rows = other.encode(TEXTS[:1])
        assert other.loads == 1 and rows.dtype == DTYPES[changes.get("dtype", "float32")]
        assert len(list(tmp_path.rglob("*.safetensors"))) == count
    monkeypatch.setattr(umt5, "version_of", lambda package: "0.0")
    other = loaded(files, tmp_path)
    other.prepare(TEXTS[:1])
    assert other.loads == 1


def test_a_processors_rows_are_not_taken_for_a_cards(files, tmp_path):
    """`text_device` is in a run's name; which card of several is not."""
    here, card, other = (loaded(files, tmp_path, device=device)._entry(TEXTS[0]).path for device in ("cpu", "cuda", "cuda:1"))
    assert here != card == other


def test_an_encoder_on_the_processor_has_all_cores_and_gives_them_back(files, tmp_path, monkeypatch):
    """A worker has one thread, and while it encodes the others wait for it."""
    monkeypatch.setattr(umt5, "cores", lambda: 3)
    before, text, seen = torch.get_num_threads(), loaded(files, tmp_path), []
    monkeypatch.setattr(text, "_rows", lambda tokens: seen.append(torch.get_num_threads()) or torch.zeros(len(tokens), 32))
    text.prepare(TEXTS[:2])
    assert (seen, torch.get_num_threads()) == ([3, 3], before)

    def fail(tokens):
        raise RuntimeError

    monkeypatch.setattr(text, "_rows", fail)
    with pytest.raises(RuntimeError):
        text.prepare(TEXTS[2:])
    assert torch.get_num_threads() == before


def test_damaged_rows_are_made_again(files, tmp_path):
    rows = loaded(files, tmp_path).encode(TEXTS[:1])
    (path,) = tmp_path.rglob("*.safetensors")
    for damage in (path.read_bytes()[:100], b"", None):
        if damage is None:
            save_file({"rows": torch.zeros(1, 32)}, path)
        else:
            path.write_bytes(damage)
        text = loaded(files, tmp_path)
        assert torch.equal(text.encode(TEXTS[:1]), rows) and text.loads == 1


def _prepare(cache: Path, texts: list[str], start, loads) -> None:
    umt5.cores = lambda: 1  # threads that the parent has started are not there after a fork
    text = Umt5Text.random("tiny", cache=cache, dtype="float32")
    tensors = text._tensors

    def slowly(model):
        time.sleep(0.3)
        return tensors(model)

    text._tensors = slowly
    start.wait()
    text.prepare(texts)
    loads.put(text.loads)


def test_two_processes_load_one_encoder(tmp_path):
    fork = multiprocessing.get_context("fork")
    start, loads = fork.Barrier(2), fork.Queue()
    processes = [fork.Process(target=_prepare, args=(tmp_path, TEXTS, start, loads)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [loads.get(timeout=300) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(found) == [0, 1] and len(list(tmp_path.rglob("*.safetensors"))) == 3
    third = Umt5Text.random("tiny", cache=tmp_path, dtype="float32")
    third.encode(TEXTS)
    assert third.loads == 0


def test_long_prompt_is_refused_and_not_cut(files, tmp_path):
    count = len(loaded(files, tmp_path)._entry(TEXTS[2]).tokens)
    text = loaded(files, tmp_path, text_len=count - 3)
    message = rf"^'Back in the same .*\.\.\.' has {count} tokens; .* at most {count - 3} with the end token, so shorten it by 3$"
    with pytest.raises(ValueError, match=message):
        text.prepare(["A ferry.", TEXTS[2]])
    assert text.loads == 0 and not list(tmp_path.rglob("*.safetensors"))
    exact = loaded(files, tmp_path, text_len=count)
    exact.check([TEXTS[2]])
    assert (exact.encode([TEXTS[2]])[0].abs().sum(-1) > 0).all()


def test_bfloat16_is_bfloat16_throughout(files, tmp_path):
    text = loaded(files, tmp_path, dtype="bfloat16")
    rows, exact = text.encode(TEXTS), directly(files, TEXTS)
    assert {weight.dtype for weight in text._encoder.parameters()} == {torch.bfloat16}
    assert 0 < (rows.float() - exact).abs().max() < 0.05 * exact.abs().max(), report(rows.float(), exact)


def test_random_encoder_is_always_the_same_and_needs_no_file(tmp_path):
    rows = Umt5Text.random("tiny", cache=tmp_path / "a", dtype="float32").encode(TEXTS)
    torch.rand(1)
    again = Umt5Text.random("tiny", cache=tmp_path / "b", dtype="float32").encode(TEXTS)
    assert torch.equal(rows, again) and rows.shape == (3, 512, 32)
    assert 0.3 < rows[0, 0].std() < 3
    wide = Umt5Text.random("native", cache=tmp_path)
    assert wide.text_dim == 4096 and wide.loads == 0
    # As many tokens as a trained tokenizer makes of English, about 4 for 3 words: the real one's limit is hit about where it would be.
    words = "an old red kite drifts slowly over quiet autumn hills ".split() * 20
    assert 1.2 < len(wide._entry(" ".join(words)).tokens) / len(words) < 1.8


def test_wrong_files_are_refused_in_one_line(files, tmp_path):
    torch.save({"decoder.upsamples.0.residual.0.gamma": torch.ones(2, 1, 1, 1)}, tmp_path / "vae.pth")
    with pytest.raises(ValueError, match=r"vae\.pth: not a UMT5 encoder: .*missing.*; it looks like a VAE in Wan's layout"):
        Umt5Text.load(tmp_path / "vae.pth", files / "tokenizer", cache=tmp_path, identity="x")
    tensors = torch.load(files / "models_t5_umt5-xxl-enc-bf16.pth")
    short = {name: value for name, value in tensors.items() if "blocks.1.pos_embedding" not in name}
    torch.save(short | {"blocks.1.norm2.weight": torch.ones(3)}, tmp_path / "short.pth")
    with pytest.raises(
        ValueError, match=r"1 missing keys, first .*block\.1\..*relative_attention_bias.*; 1 misshapen.*UMT5 encoder in Wan"
    ):
        Umt5Text.load(tmp_path / "short.pth", files / "tokenizer", cache=tmp_path, identity="x")
    good = files / "models_t5_umt5-xxl-enc-bf16.pth"
    with pytest.raises(ValueError, match=r"no tokenizer at .*tokenizer\.json"):
        Umt5Text.load(good, tmp_path, cache=tmp_path, identity="x")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json: not a tokenizer\.json"):
        Umt5Text.load(good, tmp_path, cache=tmp_path, identity="x")
    torch.save(tensors | {"token_embedding.weight": tensors["token_embedding.weight"][:50]}, tmp_path / "few.pth")
    with pytest.raises(ValueError, match=r"tokenizer\.json: \d+ tokens, but the text encoder knows 50; it belongs to another encoder"):
        Umt5Text.load(tmp_path / "few.pth", files / "tokenizer", cache=tmp_path, identity="x")
    with pytest.raises(ValueError, match="belongs to another encoder"):
        umt5.check(tmp_path / "few.pth", files / "tokenizer")
    umt5.check(good, files / "tokenizer")
    with pytest.raises(ValueError, match="text encoder in 'float8': one of float32, bfloat16"):
        Umt5Text.random("tiny", cache=tmp_path, dtype="float8")
    with pytest.raises(ValueError, match="random text encoder 'huge': one of tiny, native"):
        Umt5Text.random("huge", cache=tmp_path)


def test_a_tokenizer_of_another_family_is_refused_from_both_sides(files, tmp_path):
    """Too many tokens is tested above. Too few: mT5's tokenizer with UMT5's encoder, whose rows are rounded up by fewer than 128."""
    tensors = torch.load(files / "models_t5_umt5-xxl-enc-bf16.pth")
    rows = tensors["token_embedding.weight"]
    size = need("tokenizers").Tokenizer.from_file(str(files / "tokenizer" / "tokenizer.json")).get_vocab_size()
    for extra, fits in ((size - 1, True), (size, False)):  # beside the 128 rows that there are
        torch.save(tensors | {"token_embedding.weight": torch.cat([rows, torch.ones(extra, 32)])}, tmp_path / "more.pth")
        if fits:
            umt5.check(tmp_path / "more.pth", files / "tokenizer")
        else:
            with pytest.raises(
                ValueError, match=rf"tokenizer\.json: {size} tokens, but the text encoder knows {128 + size}; it belongs to another"
            ):
                umt5.check(tmp_path / "more.pth", files / "tokenizer")
    assert not 250_100 <= 256_384 < 250_100 + tokens.PADDED, "mT5's tokenizer"
    assert 256_300 <= 256_384 < 256_300 + tokens.PADDED, "UMT5's own"


def test_a_prompt_of_unknown_pieces_is_refused(files, tmp_path):
    text = loaded(files, tmp_path)
    text.check([TEXTS[2], f"{TEXTS[0]} 渡船技工"])
    with pytest.raises(
        ValueError, match=r"^'渡.*': \d+ of its \d+ letters are unknown to .*tokenizer\.json; it is another encoder's"
    ) as refusal:
        text.check(["渡船技工在船上工作的渡船技工"])
    assert "\n" not in str(refusal.value) and text.loads == 0


def test_pieces_are_what_the_tokenizer_cuts_letters_into(files, tmp_path):
    """Its tokens put together are the text, whatever stands before the first, letters of several bytes and unknown ones too."""
    text, tokenizer = loaded(files, tmp_path), need("tokenizers").Tokenizer.from_file(str(files / "tokenizer" / "tokenizer.json"))
    for whole in ("mechanic", "enginewaits", "beside"):
        cut = [token.strip("▁") for token in tokenizer.encode(whole).tokens[:-1]]
        assert text.pieces(whole) == [piece for piece in cut if piece]
    assert "".join(text.pieces("渡mechanic船")) == "渡mechanic船"


def test_missing_package_says_how_to_install_it():
    with pytest.raises(ValueError, match=r"^backbone=x needs no_such_package: pip install -e '\.\[wan\]'$"):
        need("no_such_package.part", asked="backbone=x")
