from models.differences import clip_differences, differences


def test_a_changed_setting_is_named_as_in_the_configuration():
    before = {"train": {"epochs": 2, "seed": 0}, "clips": "a"}
    assert differences(before, {"train": {"epochs": 3, "seed": 0}, "clips": "b"}) == [
        "train.epochs: was 2, is 3"
    ]


def test_equal_documents_have_no_differences():
    document = {"network": {"width": 1.0, "blocks": [3, 4]}, "labels": ["a"]}
    assert differences(document, dict(document)) == []


def test_another_render_variant_is_one_phrase():
    def stores(variant):
        spec = {"stage": "render", "variant": variant}
        return {"stores": {"pose": {"store": f"render/{variant}", "spec": spec}}}

    found = differences(stores("rgb-bar-13-ratio"), stores("black-dot-6-uniform"))
    assert found == ["render.variant: was rgb-bar-13-ratio, is black-dot-6-uniform"]


def test_a_changed_store_option_and_a_retrained_teacher():
    before = {"stores": {"flow": {"spec": {"bound_px": 10}}}, "teachers": {"pose": "aa", "flow": "bb"}}
    now = {"stores": {"flow": {"spec": {"bound_px": 20}}}, "teachers": {"pose": "cc", "flow": "bb"}}
    assert differences(before, now) == [
        "store of flow: bound_px was 10, is 20",
        "teacher pose was trained again",
    ]


def test_many_changes_are_counted():
    before, now = ({"train": {f"option_{i}": k for i in range(9)}} for k in (1, 2))
    found = differences(before, now)
    assert len(found) == 5
    assert found[-1] == "5 more settings changed"


def test_clips_are_counted_by_what_happened_to_them():
    def row(key="k", label="a", split="train"):
        return {"key": key, "label": label, "split": split}

    before = {"1": row(), "2": row(), "3": row(), "4": row(), "gone": row()}
    now = {
        "1": row(),
        "2": row(key="new"),
        "3": row(label="b"),
        "4": row(split="val"),
        "5": row(),
        "6": row(),
    }
    assert clip_differences(before, now) == [
        "2 clips were added",
        "1 clip was removed",
        "1 clip was made anew",
        "1 clip was relabelled",
        "1 clip was moved to another split",
    ]
