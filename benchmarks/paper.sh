#!/usr/bin/env bash
# `make paper`: the experiments of docs/paper.md, in order of cost. Given again, it resumes: runs and
# evaluations that have finished are not repeated. Arguments are added to every training command, such
# as data.archive_dir=FOLDER.
set -euo pipefail
out=${PAPER_DIR:-outputs/paper}

train() { # NAME WORDS…: a sweep, and its report
    local name=$1
    shift
    echo "== $name"
    bpc-train -m "hydra.sweep.dir=$out/$name" "$@"
}
evaluate() { # NAME WORDS…: every run of a sweep, once
    local name=$1
    shift
    bpc-eval "$out/$name" "$@"
}

train bimodal experiment=bimodal_mnist algorithm=bpc,genpc n_seeds=5 "$@"
evaluate bimodal inference.n_steps=100
bpc-report "$out/bimodal"

train notebook experiment=authors_notebook n_seeds=10 "$@"
bpc-report "$out/notebook"

train representation experiment=latent_mnist mode=unsupervised,hybrid algorithm=bpc,genpc n_seeds=5 "$@"
evaluate representation inference.n_steps=8 samples=1000 optim.activity_lr=0.01
bpc-report "$out/representation"

train labels experiment=labels_mnist data.label_fraction=0.001,0.01,0.1,1 n_seeds=5 "$@"
train labels_bp experiment=labels_mnist_bp data.label_fraction=0.001,0.01,0.1,1 n_seeds=5 "$@"
bpc-report "$out/labels" "$out/labels_bp" --output "$out/labels_report"

train supervised n_seeds=5 \
    experiment=paper_mnist_bp,paper_mnist_discpc,paper_mnist_hpc,paper_mnist_genpc,paper_mnist_bpc "$@"
evaluate supervised inference.n_steps=100
bpc-report "$out/supervised"

train occlusion n_seeds=5 \
    experiment=best_mnist_bp,best_mnist_discpc,best_mnist_hpc,best_mnist_genpc,best_mnist "$@"
evaluate occlusion inference.n_steps=100 optim.activity=adam optim.activity_lr=0.05 \
    forward_energy_weight=1 diagnostics=[completion] diagnosis.n_images=2000
bpc-report "$out/occlusion"
