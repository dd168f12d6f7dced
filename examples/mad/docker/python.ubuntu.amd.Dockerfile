# CONTEXT {'gpu_vendor': 'AMD', 'guest_os': 'UBUNTU'}
# Any image with bash and python3 will do.
ARG BASE_DOCKER=python:3.12-slim
FROM $BASE_DOCKER

ENV WORKSPACE_DIR=/workspace
RUN mkdir -p $WORKSPACE_DIR
WORKDIR $WORKSPACE_DIR
