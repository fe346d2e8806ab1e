"""Empty prompts are put into a labeling config, and nothing else of it changes."""

from __future__ import annotations

import pytest

from backend.errors import LabelConfigError
from backend.labels.config import parse_config
from backend.labels.prompt_stubs import STUB, with_prompt_stubs

CONFIG = """<View>
  <!-- 犬 here is no choice: <Choice value="犬"/> -->
  <Image   name="image" value="$image"/>
  <Choices name="tags" toName="image" choice="multiple">
    <Choice value="cat"/>
    <Choice   value='犬' hint="1 &lt; 2"/>
    <Choice value="猫" model_prompt="a cat"></Choice>
    <Choice value="猿" model_prompt=""/>
    <Choice value="鳥" model_skip="true"/>
  </Choices>
  <Taxonomy name="kind" toName="image"><Choice value="動物"><Choice value="犬"/></Choice></Taxonomy>
  <Choices name="no" toName="image" model_skip="true"><Choice value="魚"/></Choices>
  <Choice value="孤"/>
</View>
"""


def is_foreign(text: str) -> bool:
    return not text.isascii()


def test_only_the_stubs_are_inserted():
    stubbed, values = with_prompt_stubs(CONFIG, is_foreign)
    assert values == ["犬", "猿", "動物"]
    assert stubbed.replace(STUB, "", 3).count(STUB) == 1, "the one that was there"
    assert stubbed.replace(f"<Choice{STUB}", "<Choice") == CONFIG
    assert f"<Choice{STUB}   value='犬' hint=\"1 &lt; 2\"/>" in stubbed


def test_the_config_means_the_same_until_a_stub_is_filled_in():
    stubbed, _ = with_prompt_stubs(CONFIG, is_foreign)
    assert parse_config(stubbed).digest == parse_config(CONFIG).digest
    filled = stubbed.replace(STUB, ' model_prompt="a dog"', 1)
    assert parse_config(filled).controls[0].labels[1].prompts == ("a dog",)


def test_a_config_without_such_choices_stays_as_it_is():
    assert with_prompt_stubs(CONFIG, lambda text: False) == (CONFIG, [])


@pytest.mark.parametrize("xml", ["<View>", '<!DOCTYPE x [<!ENTITY y "z">]><View>&y;</View>'])
def test_what_is_no_config_is_refused(xml: str):
    with pytest.raises(LabelConfigError):
        with_prompt_stubs(xml, is_foreign)
