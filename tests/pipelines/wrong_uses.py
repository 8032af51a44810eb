"""Wrong uses of the command line and the configuration, each with all that it says.

`{work}` is the current folder, `{commands}` the names of all commands.
"""

WRONG: list[tuple[list[str], str]] = [
    (
        ["run", "--config", "typo.yaml"],
        "unknown key 'flow.bound_pix' in typo.yaml; did you mean 'flow.bound_px'?",
    ),
    (["run", "--flow.bound_pix", "3"], "unknown key 'flow.bound_pix'; did you mean 'flow.bound_px'?"),
    (["run", "--config", "none.yaml"], "--config: none.yaml does not exist"),
    (["run", "--config", "empty"], "--config: empty cannot be read: Is a directory"),
    (
        ["run", "pos"],
        "unknown stage 'pos'; known: frames, pose, render, flow, train-rgb, train-pose, train-flow, train-student, evaluate",
    ),
    (
        ["run", "--workspace", "nowhere"],
        "nowhere/clips.parquet does not exist; make it with `perfnet clips folder` or `perfnet clips csv`",
    ),
    (["run", "--clips.folder", "nowhere"], "clips folder: nowhere is not a folder"),
    (["run", "--max_rejected", "many"], "--max_rejected: found 'many', expected a number"),
    (["run", "--max_rejected", "2"], "--max_rejected: found 2.0, expected between 0 and 1"),
    (["run", "--run.max_rejected", "2"], "run.max_rejected: found 2.0, expected between 0 and 1"),
    (["run", "--workers", "-1"], "--workers: found -1, expected between 0 and 1024"),
    (
        ["clips", "folder", "empty", "--test_share", "0.6", "--val_share", "0.5"],
        "--test_share + --val_share: found 1.1, expected less than 1",
    ),
    (["run", "--nonsense"], "unrecognized arguments: --nonsense; see perfnet run --help"),
    (["run", "--flow.bound_px"], "--flow.bound_px needs a value"),
    (["run", "--flow.bound_px", "wide"], "flow.bound_px: found 'wide', expected a number or null"),
    (["prepare"], "the following arguments are required: stage; see perfnet prepare --help"),
    (["prepare", "train-rgb"], "unknown stage 'train-rgb'; known: frames, pose, render, flow"),
    (
        ["prepare", "pose", "--config", "good.yaml"],
        "ws/clips.parquet does not exist; make it with `perfnet clips folder` or `perfnet clips csv`",
    ),
    (
        ["train", "depth"],
        "unknown run 'depth'; known: rgb, pose, flow, student, each also with an ending and in a folder: rgb-seed1, trial/rgb-seed1",
    ),
    (
        ["evaluate", "depth"],
        "unknown run 'depth'; known: rgb, pose, flow, student, each also with an ending and in a folder: rgb-seed1, trial/rgb-seed1",
    ),
    (["fuse", "rgb", "flow=much"], "fuse: found 'flow=much', expected a run and its weight: rgb=0.5"),
    (["fuse", "rgb", "rgb=2"], "fuse: run 'rgb' is named twice; give it a larger weight: rgb=2"),
    (
        ["fuse", "depth"],
        "unknown run 'depth'; known: rgb, pose, flow, student, each also with an ending and in a folder: rgb-seed1, trial/rgb-seed1",
    ),
    (["fuse", "rgb", "--workspace", "empty"], "run rgb is not evaluated; run `perfnet evaluate rgb`"),
    (
        ["compare", "rgb", "student", "--workspace", "empty"],
        "run rgb is not evaluated; run `perfnet evaluate rgb`",
    ),
    (["predict"], "predict: name at least one video file, folder or glob"),
    (
        ["predict", "a.mp4", "--output", "a.txt"],
        "--output: found 'a.txt', expected a name that ends in .json or .csv",
    ),
    (["predict", "a.mp4", "--stride_s", "0"], "--stride_s: found 0.0, expected seconds, more than 0"),
    (["predict", "empty"], "predict: empty: the folder holds no videos"),
    (["predict", "*.nothing"], "predict: *.nothing: no file has such a name"),
    (["gradcam", "c", "--output", "a.jpg"], "--output: found 'a.jpg', expected a name that ends in .png"),
    (
        ["gradcam", "c", "--runs", "rgb", "--workspace", "empty"],
        "run rgb is not trained; run `perfnet train rgb`",
    ),
    (
        ["clips", "folder", "some", "--workspace", "/dev/null/x"],
        "/dev/null/x: a part of this path is no folder; name another path",
    ),
    (["clips", "csv", "some/a/x.mp4/labels.csv"], "clips csv: some/a/x.mp4/labels.csv is not a file"),
    (
        ["init", "--videos", "some", "--output", "some/a/x.mp4/perfnet.yaml"],
        "some/a/x.mp4: a part of this path is no folder; name another path",
    ),
    (
        ["predict", "some/a/x.mp4", "--checkpoint", "some/a/x.mp4"],
        "some/a/x.mp4 is not a checkpoint of perfnet",
    ),
    (["clips", "folder", "nowhere"], "clips folder: nowhere is not a folder"),
    (
        ["clips", "folder", "empty"],
        "clips folder: empty holds no videos (.mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .ts .m2ts .mts .flv .wmv .asf .ogv .3gp .gif)",
    ),
    (
        ["clips", "folder", "empty", "--group", "("],
        "--group: '(' is not a regular expression (missing ), unterminated subpattern at position 0)",
    ),
    (["clips", "csv", "twice.csv"], "clips csv: twice.csv clip 2: duplicate clip_id 'a'"),
    (
        ["clips", "csv", "newline.csv"],
        "clip 'a\\nb': clip_id holds a control or unprintable character ('a\\nb'); rename it",
    ),
    (["clips", "csv", "none.csv"], "clips csv: none.csv is not a file"),
    (["clips", "folder", "empty", "--folds", "1"], "--folds: found 1, expected 0 or 2 to 100"),
    (["clips", "kinetics", "--videos", "empty"], "clips kinetics: name at least one annotation CSV file"),
    (["clips", "kinetics", "a.csv", "--videos", "nowhere"], "--videos: nowhere is not a folder"),
    (["clips", "kinetics", "none.csv", "--videos", "empty"], "clips kinetics: none.csv is not a file"),
    (
        ["clips", "kinetics", "twice.csv", "--videos", "empty"],
        "clips kinetics: twice.csv has no column youtube_id, time_start, time_end; found clip_id, uri, label",
    ),
    (
        ["clips", "ucf101", "empty", "--splits", "empty"],
        "--splits: {work}/empty has no trainlist01.txt; name the folder ucfTrainTestlist",
    ),
    (["clips", "hmdb51", "empty", "--splits", "nowhere"], "--splits: nowhere is not a folder"),
    (["clips", "xml"], "unknown command 'clips xml'; known: folder, csv, kinetics, ucf101, hmdb51, check"),
    (
        ["rum"],
        "unknown command 'rum'; known: {commands}",
    ),
    (
        ["ru\nm"],
        "unknown command 'ru\\nm'; known: {commands}",
    ),
    (
        ["status", "--", "--runner=DataflowRunner"],
        "this command takes no -- options; found --runner=DataflowRunner",
    ),
    (["status", "--workspace", "http://x"], "http://x: only local paths and gs:// addresses are read"),
    (["run", "--store.format", "zip"], "store.format: found 'zip', expected one of 'parquet', 'tfrecord'"),
    (["run", "--run.workers", "x"], "run.workers: found 'x', expected a whole number"),
    (["run", "--frames.keep_damaged", "maybe"], "frames.keep_damaged: found 'maybe', expected true or false"),
    (["run", "--student.teachers", "3"], "student.teachers: found '3', expected a list"),
    (["run", "--network.blocks", "abc"], "network.blocks: found 'abc', expected a list or null"),
    (
        ["run", "--flow.backend", "cuda"],
        "flow.backend: found 'cuda', expected one of 'numba', 'torch', 'opencv'",
    ),
    (["run", "--network.backbone", "vit"], "network.backbone: found 'vit', expected one of 'r3d50g', 's3dg'"),
    (["run", "--train.batch_size", "0"], "train.batch_size: found 0, expected at least 1"),
    (["run", "--frames.shorter_side_px", "-1"], "frames.shorter_side_px: found -1, expected at least 16"),
    (
        ["run", "--config", "nothing.yaml"],
        "train.epochs: found nothing, expected a whole number; give a value or leave the key out",
    ),
    (
        ["run", "--train.learning_rate="],
        "train.learning_rate: found nothing, expected a number; give a value or leave the key out",
    ),
    (
        ["status", "--store.format", "null"],
        "store.format: found nothing, expected one of 'parquet', 'tfrecord'; give a value or leave the key out",
    ),
    (["run", "--flow", "3"], "unrecognized arguments: --flow; see perfnet run --help"),
    (["run", "frames", "--", "--runner=DataflowRunner"], "DataflowRunner needs --project; add it after --"),
    (["run", "--store.num_shards", "0"], "store.num_shards: found 0, expected between 1 and 99999"),
    (["run", "--workspace", "s3://bucket/x"], "s3://bucket/x: only local paths and gs:// addresses are read"),
    (
        ["run", "--config", "good.yaml", "--workspace", "gs://a::b"],
        "gs://a::b: only local paths and gs:// addresses are read",
    ),
    (
        ["prepare", "frames", "--workspace", "empty"],
        "empty/clips.parquet does not exist; make it with `perfnet clips folder` or `perfnet clips csv`",
    ),
    (["prepare", "flow", "--max_rejected", "-1"], "--max_rejected: found -1.0, expected between 0 and 1"),
    (
        ["status", "--output", "x.parquet"],
        "--output x.parquet: writes the list of rejected clips; add --rejected",
    ),
    (
        ["status", "--rejected", "--json"],
        "--json: prints the table of stores; for rejected clips give --output FILE.parquet",
    ),
    (["gc", "--min_age_h", "-1"], "--min_age_h: found -1.0, expected at least 0"),
    (
        ["verify", "--workspace", "empty"],
        "empty holds no committed store of this configuration; run `perfnet run`",
    ),
    (["verify", "depth", "--workspace", "empty"], "unknown store 'depth'; known: frames, render, pose, flow"),
    (
        ["export", "mediasequence"],
        "the following arguments are required: out; see perfnet export mediasequence --help",
    ),
    (["export", "coco"], "the following arguments are required: out; see perfnet export coco --help"),
    (
        ["export", "coco", "people.txt", "--workspace", "empty"],
        "empty/pose has no committed snapshot; run `perfnet run pose`",
    ),
    (
        ["report", "--workspace", "empty"],
        "empty/clips.parquet does not exist; make it with `perfnet clips folder` or `perfnet clips csv`",
    ),
    (["init", "--videos", "nowhere"], "--videos: nowhere is not a folder"),
    (["config", "--flow.bound_pix", "3"], "unknown key 'flow.bound_pix'; did you mean 'flow.bound_px'?"),
    (
        ["preview", "nobody", "--workspace", "empty"],
        "empty/frames has no committed snapshot; run `perfnet run frames`",
    ),
    (["look", "--output", "look.gif"], "--output: found 'look.gif', expected a name that ends in .webp"),
    (["experiment", "none.yaml"], "none.yaml is not a file; recipes/ has the paper's tables"),
    (
        ["experiment", "good.yaml"],
        "good.yaml: unknown key 'workspace'; known: config, folder, splits, combine, seeds, baseline, draw, runs, rows",
    ),
    (["models", "fetch", "alexnet"], "unknown model 'alexnet'; known: blazepose, movenet"),
    (["pose-score", "empty", "none.json"], "pose-score: none.json does not exist"),
    (["demo", "--folder"], "argument --folder: expected one argument; see perfnet demo --help"),
    (["evaluate", "--workspace", "empty"], "run rgb is not trained; run `perfnet train rgb`"),
    (["run", "--config", "list.yaml"], "--config: list.yaml holds a list, expected sections with keys"),
    (
        ["run", "--config", "broken.yaml"],
        "--config: broken.yaml is not YAML: while parsing a flow mapping in \"<byte string>\", line 1, column 7: flow: {bound_px ^ expected ',' or '}', but got '<stream end>' in \"<byte string>\", line 1, column 16: flow: {bound_px ^",
    ),
    (
        ["clips", "check", "--workspace", "empty"],
        "empty/clips.parquet does not exist; make it with `perfnet clips folder` or `perfnet clips csv`",
    ),
    (
        ["train", "student", "--student.teachers", "[depth]"],
        "student.teachers: found ('depth',), expected one or more runs of rgb, pose, flow",
    ),
    (["gradcam"], "the following arguments are required: clip; see perfnet gradcam --help"),
]
