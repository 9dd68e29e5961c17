#!/bin/sh
# The strength grid at its full size: a run for a GPU. Each command resumes where it was stopped.
#
#     export EFFATTACK_CIFAR10=$PWD/cifar10
#     export EFFATTACK_IMAGENET_DATA=$PWD/nips17 EFFATTACK_IMAGENET_WEIGHTS=$PWD/weights
#     sh benchmarks/full_grid.sh
#
# `sh benchmarks/full_grid.sh --estimate` says how long each table takes on this machine, and stops.
set -e
cd "$(dirname "$0")"

digits=digits_cnn_early_exit,digits_cnn_sdn,digits_msdnet,digits_vit_exit,digits_esn
digits=$digits,digits_tinysaver_cascade,digits_three_stage_cascade,digits_skipnet,digits_vit_ats
digits=$digits,digits_vit_avit,digits_vit_adavit,digits_vit_dynamicvit,digits_vit_llm_int8

python strength.py --victims $digits --images 200 --steps 50,200 --seeds 0,1,2 \
    --eps 2/255,4/255,8/255,16/255 --out strength/digits "$@"
python strength.py --victims cifar10_sdn,cifar10_tinysaver_cascade,cifar10_vit_ats --images 100 \
    --steps 50 --eps 4/255,8/255 --out strength/cifar10 "$@"
python strength.py --victims imagenet_attacked:vit_tiny_ats,imagenet_attacked:vit_tiny_llm_int8 \
    --images 32 --steps 50 --eps 8/255 --out strength/imagenet "$@"
python strength.py --victims imagenet_attacked:vit_tiny_cascade --images 32 --steps 50 --eps 1/255 \
    --out strength/cascade "$@"
