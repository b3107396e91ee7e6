#!/usr/bin/env bash
# Trains a model on your peaks, tests it on chromosomes that were not used, and scores with it.
#
#   PEAKS=peaks.tsv FASTA=hg19.fa VCF=variants.vcf.gz bash jobs/train.sh --workers 4
#
# peaks.tsv has the columns target and path (one BED or narrowPeak file per target). The words after
# the name of the script are passed to `raygenome train`. Run it again to continue after a kill.
set -euo pipefail

PEAKS=${PEAKS:?set the table of peaks: PEAKS=peaks.tsv}
FASTA=${FASTA:?set the genome: FASTA=hg19.fa}
CONFIG=${CONFIG:-configs/basset-fast.yaml}
RECIPE=${RECIPE:-basset}
BACKGROUND=${BACKGROUND:-100000}
DATA=${DATA:-data}
RUN=${RUN:-run}
SCORES=${SCORES:-scores}
read -ra valid <<<"${VALID:-chr7}"
read -ra test <<<"${TEST:-chr8 chr9}"

# 1. Windows and labels. BACKGROUND windows outside every peak are added as negatives.
raygenome data build --recipe "$RECIPE" --fasta "$FASTA" --peaks "$PEAKS" --out "$DATA" \
  --valid "${valid[@]}" --test "${test[@]}" --background "$BACKGROUND" --resume

# 2. The model. The best epoch is in RUN/model.
raygenome train "$CONFIG" --data "$DATA" --out "$RUN" --resume "$@"

# 3. How well it predicts chromosomes that it has not seen: AUROC and AUPRC of each target.
raygenome evaluate --model "$RUN/model" --data "$DATA" --split test --out "$RUN/test.parquet" --overwrite

# 4. With VCF set: the variants that it finds strongest.
if [[ -n ${VCF:-} ]]; then
  raygenome score "$VCF" --model "$RUN/model" --fasta "$FASTA" --out "$SCORES" --resume
  raygenome top "$SCORES" -n 20
fi
