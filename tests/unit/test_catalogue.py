"""Every text that people are spoken to with is in the catalogue of each language."""

from __future__ import annotations

import ast
import builtins
import copy
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.errors import SettingsError, as_text, counted, with_verb
from backend.messages.catalogue import EVIDENCE, Language, catalogue, has_words, localized
from backend.messages.message import Message, in_sequence, packed, unpacked
from tests.support.builders import ROOT
from tests.support.message_calls import called, modules, placeholders, written

JAPANESE = Language.JAPANESE
SPOKEN = (
    "backend/doctor/",
    "backend/encoders/",
    "backend/images/",
    "backend/inference/",
    "backend/labels/",
    "backend/labelstudio/",
    "backend/projects/connect.py",
    "backend/projects/overview.py",
    "backend/projects/registration.py",
    "backend/projects/review.py",
    "backend/projects/rollback.py",
    "backend/server/pages/",
    "backend/settings.py",
    "backend/storage/",
    "jobs/",
)
"""What ``ls-clip connect`` and ``ls-clip doctor`` may have to say comes from here."""
OF_OTHER_COMMANDS = {
    "backend/labels/label_files.py",
    "backend/storage/check.py",
    "jobs/run_store.py",
}
FIRST_TEXT = {
    "Check": 1,
    "Finding": 2,
    "finding": 1,
    "ImageError": 1,
    "DirectReadError": 1,
    "kind": 0,
}
"""What is called -> place of its first argument for people; of all other errors the first one."""
LAST_TEXT = {"Check": 3}
NOT_OURS = {*dir(builtins), "DeserializationError"}


def spoken_modules() -> list[str]:
    names = [str(path.relative_to(ROOT)) for path in modules()]
    return [name for name in names if name.startswith(SPOKEN) and name not in OF_OTHER_COMMANDS]


def bare_texts(path: Path) -> Iterator[str]:
    """Texts for people in a module that are no messages, and would stay English."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            name = called(node)
            is_error = name.endswith("Error") and name not in NOT_OURS
            if is_error or name in FIRST_TEXT:
                first, last = FIRST_TEXT.get(name, 0), LAST_TEXT.get(name)
                for argument in [*node.args[first:last], *(kw.value for kw in node.keywords)]:
                    yield from _bare(argument)


def _bare(node: ast.expr) -> Iterator[str]:
    parts: list[ast.expr] = []
    if isinstance(node, ast.IfExp):
        parts = [node.body, node.orelse]
    elif isinstance(node, ast.BoolOp):
        parts = node.values
    elif isinstance(node, ast.JoinedStr | ast.BinOp):
        yield f"{node.lineno}: {ast.unparse(node)}"
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and has_words(node.value):
        yield f"{node.lineno}: {node.value}"
    elif isinstance(node, ast.Call) and called(node) == "strip":
        yield f"{node.lineno}: {ast.unparse(node)}"
    for part in parts:
        yield from _bare(part)


def test_what_connect_and_doctor_say_can_be_translated():
    bare = {name: found for name in spoken_modules() if (found := [*bare_texts(ROOT / name)])}
    assert bare == {}, "make it a Message of backend/messages/message.py"


def test_the_catalogue_has_every_text_and_no_other():
    known = {key for table in catalogue(JAPANESE).values() for key in table}
    assert {key for key in written() if has_words(key)} - known == set(), "translate these"
    assert known - {*written()} == set(), "nothing says these any more"


def test_a_translation_has_the_placeholders_of_its_text():
    for table in catalogue(JAPANESE).values():
        for english, japanese in table.items():
            assert placeholders(english) == placeholders(japanese), english


def test_no_text_is_translated_twice():
    keys = [key for table in catalogue(JAPANESE).values() for key in table]
    assert len(keys) == len({*keys})


def test_what_stands_beside_predictions_is_in_the_table_that_makes_their_version():
    ours = {
        key
        for key, path in written().items()
        if path.name in {"evidence.py", "model_version.py"} and has_words(key)
    }
    assert ours | {"trained on {reviewed} reviewed tasks"} == {*catalogue(JAPANESE)[EVIDENCE]}


def test_a_message_is_its_english_text():
    text = Message("No head {name!r}, {share:.1f} %.", name="h1", share=12.34)
    assert text == "No head 'h1', 12.3 %." == localized(text, Language.ENGLISH)


def test_what_is_in_a_message_is_translated_too():
    text = Message("The last run left {left_out} out.", left_out=counted(3, "task"))
    assert localized(text, JAPANESE) == "前回の一括予測ではタスク 3 件が対象外になりました。"


@pytest.mark.parametrize("number", [0, 1, 3])
def test_any_number_is_counted_in_one_form(number: int):
    assert localized(counted(number, "image"), JAPANESE) == f"画像 {number} 枚"
    waiting = localized(with_verb(number, "job", "waits", "wait"), JAPANESE)
    assert waiting == f"ジョブ {number} 件が待機しています"


def test_a_text_without_a_translation_stays_english():
    assert localized("plain", JAPANESE) == "plain"
    text = Message("untranslated {images}", images=counted(2, "image"))
    assert localized(text, JAPANESE) == "untranslated 2 images"


def test_sentences_follow_each_other_as_the_language_writes_them():
    text = in_sequence("", Message("The queue answers."), "", Message("Workers listen."))
    assert text == "The queue answers. Workers listen."
    assert localized(text, JAPANESE) == "キューは応答しています。ワーカーが待ち受けています。"
    assert in_sequence("") == ""


def test_a_message_survives_copies_and_another_process():
    text = Message("{before} and {name}", before=counted(1, "task"), name="{x}")
    for again in (copy.deepcopy(text), unpacked(packed(text))):
        assert again == text
        assert localized(again, JAPANESE) == "タスク 1 件 と {x}"
    assert unpacked(packed("plain")) == "plain"


def test_an_error_keeps_its_code_and_says_its_fix_in_the_language():
    error = SettingsError(Message("The file .env is not UTF-8."), Message("Save it as UTF-8."))
    said = error.as_dict(JAPANESE)
    assert said["code"] == "settings"
    line = "settings: .env ファイルが UTF-8 ではありません。 対処: UTF-8 で保存してください。"
    assert f"settings: {as_text(said, JAPANESE)}" == line
    assert str(error) == "The file .env is not UTF-8. Fix: Save it as UTF-8."
