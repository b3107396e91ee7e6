#!/usr/bin/env bash
# Trains a model on your peaks, tests it on chromosomes that it has not seen, and scores with it.
#
#   PEAKS=peaks.tsv FASTA=hg38.fa VCF=variants.vcf.gz bash jobs/train.sh --workers 4
#
# peaks.tsv has the columns target and path (a BED or narrowPeak file each). What follows the name
# of the script goes to `raygenome train` as it is. Run again, it goes on with what is there.
set -euo pipefail

PEAKS=${PEAKS:?name the table of peaks: PEAKS=peaks.tsv}
FASTA=${FASTA:?name the genome: FASTA=hg38.fa}
CONFIG=${CONFIG:-configs/basset-fast.yaml}
RECIPE=${RECIPE:-basset}
BACKGROUND=${BACKGROUND:-100000}
DATA=${DATA:-data}
RUN=${RUN:-run}
SCORES=${SCORES:-scores}
read -ra valid <<<"${VALID:-chr7}"
read -ra test <<<"${TEST:-chr8 chr9}"

raygenome data build --recipe "$RECIPE" --fasta "$FASTA" --peaks "$PEAKS" --out "$DATA" \
  --valid "${valid[@]}" --test "${test[@]}" --background "$BACKGROUND" --resume
raygenome train "$CONFIG" --data "$DATA" --out "$RUN" --resume "$@"
raygenome evaluate --model "$RUN/model" --data "$DATA" --split test --out "$RUN/test.parquet" --overwrite

if [[ -n ${VCF:-} ]]; then
  raygenome score "$VCF" --model "$RUN/model" --fasta "$FASTA" --out "$SCORES" --resume
  raygenome top "$SCORES" -n 20
fi
