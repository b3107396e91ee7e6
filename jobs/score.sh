#!/usr/bin/env bash
# Scores a VCF, to the end: what a kill or a lost worker leaves undone is gone on with.
#
#   VCF=variants.vcf.gz FASTA=hg38.fa bash jobs/score.sh --workers 4
#
# VCF, FASTA and OUT may be s3:// or gs:// URLs. What follows the name of the script goes to
# `raygenome score` as it is.
set -euo pipefail

VCF=${VCF:?name the variants: VCF=variants.vcf.gz}
FASTA=${FASTA:?name the genome: FASTA=hg38.fa}
MODEL=${MODEL:-deepsea}
OUT=${OUT:-scores}
TRIES=${TRIES:-3}

raygenome models show "$MODEL" >/dev/null 2>&1 || raygenome models pull "$MODEL"

# 75: some shards failed; 137: killed for memory. --resume redoes only what was not committed.
for ((try = 1; ; try++)); do
  code=0
  raygenome score "$VCF" --model "$MODEL" --fasta "$FASTA" --out "$OUT" --resume "$@" || code=$?
  if ((code != 75 && code != 137 || try == TRIES)); then break; fi
done
((code == 0)) || exit "$code"

raygenome verify "$OUT"
raygenome top "$OUT" -n 20
