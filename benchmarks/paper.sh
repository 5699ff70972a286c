#!/usr/bin/env bash
# `make paper`: the experiments of docs/paper.md, in order of cost. Given again, it resumes: runs and
# evaluations that have finished are not repeated. Arguments are added to every training command, such
# as data.archive_dir=FOLDER.
set -euo pipefail
out=${PAPER_DIR:-outputs/paper}

train() { # NAME WORDS...: a sweep
    echo "== $1"
    bpc-train -m "hydra.sweep.dir=$out/$1" "${@:2}"
}

evaluate() { # NAME WORDS...: every run of a sweep, once
    bpc-eval "$out/$1" "${@:2}"
}

report() { # NAME...: the sweeps of these names beside each other
    bpc-report "${@/#/$out/}" --output "$out/$1/report"
}

train notebook experiment=authors_notebook n_seeds=10 "$@"
report notebook

train bimodal experiment=bimodal_mnist algorithm=bpc,genpc n_seeds=5 "$@"
evaluate bimodal inference.n_steps=100
report bimodal

train labels experiment=labels_mnist data.label_fraction=0.001,0.01,0.1,1 n_seeds=3 "$@"
train labels_alone data.label_fraction=0.001,0.01,0.1,1 n_seeds=3 \
    experiment=labels_mnist_alone,labels_mnist_bp "$@"
report labels labels_alone

train representation experiment=latent_mnist,latent_mnist_genpc mode=unsupervised,hybrid n_seeds=5 "$@"
train supervision experiment=latent_mnist mode=supervised model.latent=0 \
    inference.latent_precision=0 n_seeds=5 "$@"
evaluate representation inference.n_steps=8
evaluate representation inference.n_steps=0 lowest_energy=false samples=1000 sampling.rate=0.01 \
    inference.noise=0.1 "hydra.sweep.dir=$out/representation/samples/evaluations"
report representation supervision

train supervised n_seeds=5 \
    experiment=paper_mnist_bp,paper_mnist_discpc,paper_mnist_hpc,paper_mnist_genpc,paper_mnist_bpc "$@"
evaluate supervised inference.n_steps=100
report supervised

train occlusion experiment=best_mnist_bp,best_mnist_discpc,best_mnist_hpc,best_mnist_genpc,best_mnist \
    n_seeds=5 "$@"
evaluate occlusion inference.n_steps=100 optim.activity=adam optim.activity_lr=0.05 \
    forward_energy_weight=1 diagnostics=[completion] data.n_test=2000 diagnosis.n_images=2000
report occlusion
