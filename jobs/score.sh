#!/usr/bin/env bash
# Scores a VCF to the end, also after a kill or a lost worker.
#
#   VCF=variants.vcf.gz FASTA=hg19.fa bash jobs/score.sh --workers 4
#
# VCF, FASTA and OUT may be s3:// or gs:// URLs. VCF and FASTA must be of one genome build. The
# words after the name of the script are passed to `raygenome score`.
set -euo pipefail

VCF=${VCF:?set the variants: VCF=variants.vcf.gz}
FASTA=${FASTA:?set the genome: FASTA=hg19.fa}
MODEL=${MODEL:-deepsea}
OUT=${OUT:-scores}
TRIES=${TRIES:-3}

# 1. The model: downloaded unless it is there.
raygenome models show "$MODEL" >/dev/null 2>&1 || raygenome models pull "$MODEL"

# 2. The scores. --resume starts a run, or does only what an interrupted run has not committed.
#    Exit code 75: some shards failed; 137: killed because memory ran out. Both are tried again.
for ((try = 1; ; try++)); do
  code=0
  raygenome score "$VCF" --model "$MODEL" --fasta "$FASTA" --out "$OUT" --resume "$@" || code=$?
  if ((code != 75 && code != 137 || try == TRIES)); then break; fi
done
((code == 0)) || exit "$code"

# 3. Check every file, then show the strongest variants.
raygenome verify "$OUT"
raygenome top "$OUT" -n 20
