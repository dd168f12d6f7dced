# CONTEXT {'gpu_vendor': 'AMD', 'guest_os': 'UBUNTU'}
# Any image with bash will do: nothing is installed, so the build needs no network once the base is there.
ARG BASE_DOCKER=ubuntu:22.04
FROM $BASE_DOCKER

ENV WORKSPACE_DIR=/workspace
RUN mkdir -p $WORKSPACE_DIR
WORKDIR $WORKSPACE_DIR
