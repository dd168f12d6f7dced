#!/usr/bin/env bash
# Several results: one row of a CSV file each, in the file that the card calls `multiple_results`.
set -eu
cat >dummy_multi.csv <<'CSV'
model,performance,metric,batch_size
train,1200.5,samples_per_second,32
train,2210.25,samples_per_second,64
infer,8.5,latency_ms,1
CSV
echo "wrote dummy_multi.csv"
