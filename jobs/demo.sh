#!/usr/bin/env bash
# A tour of raygenome in one minute, without a download: from a genome and a VCF to ranked variants.
#
#   bash jobs/demo.sh
#
# It writes the folders demo/ and demo-scores/ here. Each step prints its command.
set -euo pipefail

step() {
  printf '\n# %s\n$ %s\n' "$1" "${*:2}"
  "${@:2}"
}

# The demo makes a genome of random sequence and plants motifs of transcription factors in it. It
# also makes 3,000 variants; 60 of them break a motif. So we know which variants must come first.
step "Make a synthetic genome and variants, and score them" \
  raygenome demo --out demo --overwrite

# Scoring leaves a folder of Parquet files. An interrupted run continues with --resume.
step "The same by hand: a VCF, a model, a genome, an output folder" \
  raygenome score demo/demo.vcf --model demo --fasta demo/demo.fa --out demo-scores --overwrite

# The score of an allele is its largest effect on any target. The sign of diff says the direction:
# negative means that the alternate allele weakens the signal.
step "The strongest alleles" raygenome top demo-scores -n 5
step "The strongest alleles for one target" raygenome top demo-scores --target CTCF -n 5

# Every table of a run can be queried: scores, ranked, ranked_targets, skipped, targets.
step "How many strong effects has each target?" raygenome query demo-scores \
  "SELECT name, count(*) AS variants FROM ranked WHERE score > 0.5 GROUP BY name ORDER BY 2 DESC"

step "Is every file complete and undamaged?" raygenome verify demo-scores

printf '\nNext: jobs/score.sh scores your own variants with the published DeepSEA.\n'
