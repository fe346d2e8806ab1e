"""What the table of attributes in docs/labels.md says in Japanese, in docs/ja/labels.md."""

from __future__ import annotations

from collections.abc import Mapping

from backend.labels.attributes import Answer

JAPANESE_ANSWERS: Mapping[Answer, str] = {
    Answer.HONOURED: "反映",
    Answer.LEFT_OUT: "対象外",
    Answer.NO_EFFECT: "影響なし",
}

# By the English meaning, so that one which changes has to be translated again.
JAPANESE_MEANINGS: Mapping[str, str] = {
    "`from_name` of the prediction's results": "予測の結果の `from_name`",
    "`to_name` of the prediction's results": "予測の結果の `to_name`",
    "the images that are looked at, one or several": "対象の画像。1 枚または複数",
    (
        "every image has a label of the control, so that few labels are each likelier; not if "
        "it is shown under a condition"
    ): (
        "どの画像にもこのコントロールのラベルが付くので、ラベルが少ないほど、それぞれの確率は高くなる。"
        "条件付きで表示されるときは別"
    ),
    "only a text": "文言だけ",
    (
        "a control that is hidden when a task opens is not predicted; a follow-up question is "
        "ticked where the prediction itself selects the choices that show it"
    ): (
        "タスクを開いたときに隠れているコントロールは予測しない。追加の質問には、その表示の条件となる"
        "選択肢を予測自体が選ぶときにチェックを付ける"
    ),
    "only narrows down which region it is shown for": "どの領域について表示するかを絞り込むだけ",
    "only about chats": "チャットだけに関するもの",
    "it labels regions, not the image": "画像ではなく、領域にラベルを付けるため",
    "only about regions": "領域だけに関するもの",
    "it labels the images of a list one by one (perItem), not the task": (
        "タスクではなく、リストの画像 1 枚ごとにラベルを付けるため(perItem)"
    ),
    (
        "`$field`: this task's own labels, after those of the config; objects with `value`, "
        "`alias`, `selected`, `visible`, `readonly`"
    ): (
        "`$field`: 設定のラベルに続く、このタスクだけのラベル。`value`、`alias`、`selected`、"
        "`visible`、`readonly` を持つオブジェクト"
    ),
    (
        "`$field`: this task's own labels, only where the config has none for the tree; objects "
        "with `value`, `alias`, `children`, `selected`"
    ): (
        "`$field`: このタスクだけのラベル。設定にこのツリーのラベルが 1 つもないときに限る。"
        "`value`、`alias`、`children`、`selected` を持つオブジェクト"
    ),
    "`multiple`: every label over the threshold is ticked; else only the most probable one": (
        "`multiple`: しきい値を超えるすべてのラベルにチェックを付ける。"
        "その他: 最も確率の高いものだけ"
    ),
    "Label Studio's import drops predictions of nested paths; use a <Taxonomy> instead": (
        "入れ子のパスの予測は Label Studio のインポートで捨てられるため。代わりに <Taxonomy> を使う"
    ),
    "only changes how it looks": "見た目を変えるだけ",
    "`select`: the list offers choices that boxes would hide or lock, too": (
        "`select`: リストには、ボックスなら隠れたり固定されたりする選択肢も並ぶ"
    ),
    "Label Studio reads it on other tags only": "Label Studio は他のタグでしか読まない",
    "Label Studio shows the control all the same": "Label Studio はそれでも表示する",
    "only leaves are labels": "末端だけがラベルになる",
    "at most so many labels are ticked, the most probable": (
        "最大でこの数のラベルに、確率の高いものからチェックを付ける"
    ),
    "its labels come from a URL": "ラベルを URL から取得するため",
    "labels that annotators add of their own are not predicted": (
        "アノテーターが独自に追加したラベルは予測しない"
    ),
    "the label, which the model reads; `$field` in it is replaced by the task's data": (
        "ラベル。モデルが読む。中の `$field` はタスクのデータに置き換える"
    ),
    "what Label Studio stores, and so does the prediction": (
        "Label Studio が保存する値。予測にもこの値が入る"
    ),
    (
        "Label Studio preselects nothing where there is a prediction: so it is selected where "
        "the prediction ticks nothing in its control, in controls left out, and in blind tasks"
    ): (
        "予測があるとき、Label Studio は何も初期選択しない。そのため、そのコントロールで"
        "予測が何もチェックしない場合、対象外のコントロール、ブラインドタスクでは、予測がこれを選択する"
    ),
    '`"false"` hides a choice of <Choices>: never ticked': (
        '`"false"` は <Choices> の選択肢を隠す: チェックを付けない'
    ),
    '`"true"`: nobody could untick it, so that it is never ticked (<Choices>)': (
        '`"true"`: 誰もチェックを外せないので、チェックを付けない(<Choices>)'
    ),
    "what hides a <View> hides a choice of <Choices>: never ticked": (
        "<View> を隠すものは <Choices> の選択肢も隠す: チェックを付けない"
    ),
    "for people; the model reads `value`": "人のためのもの。モデルは `value` を読む",
    "Label Studio does not read it here; put the choice into a <View>": (
        "Label Studio はここでは読まない。選択肢を <View> で囲む"
    ),
    "`$image`, `$pages[0].url`, `$a.b`, or a text around it: `/data/local-files/?d=$file`": (
        "`$image`、`$pages[0].url`、`$a.b`、または前後に文字列を付けたもの: "
        "`/data/local-files/?d=$file`"
    ),
    "several images: each label has its highest probability over them": (
        "複数の画像: 各ラベルの確率は、画像ごとの確率の最大値"
    ),
    "about the browser; the backend fetches images itself": (
        "ブラウザに関するもの。バックエンドは自分で画像を取得する"
    ),
    (
        "`display: none`, `visibility: hidden`, `opacity: 0`, or no height or width and `overflow: "
        "hidden`: what is in it is left out"
    ): (
        "`display: none`、`visibility: hidden`、`opacity: 0`、または高さか幅が 0 で `overflow: "
        "hidden`: 中のものは対象外"
    ),
    "left out where a <Style> hides the class": "<Style> がこのクラスを隠していれば対象外",
    "left out where a <Style> hides the id": "<Style> がこの id を隠していれば対象外",
    "it is repeated for each entry of a list (<Repeater>)": (
        "リストの要素ごとに繰り返されるため(<Repeater>)"
    ),
    "what is repeated is left out": "繰り返されるものは対象外",
    "a control in a closed panel is left out: its suggestions would be submitted unseen": (
        "閉じたパネルの中のコントロールは対象外: 候補が見えないまま送信されるため"
    ),
    "only the first open panel is open": "開いたパネルのうち、最初のものだけが開く",
    "as for <Collapse>, of this panel": "<Collapse> と同じ。このパネルについて",
    "only a title": "タイトルだけ",
}
