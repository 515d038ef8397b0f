"""All boards."""

from config.generate import cache, cluster, overview, pools, slow, tenant

BOARDS = (overview.BOARD, tenant.BOARD, cluster.BOARD, pools.BOARD, cache.BOARD, slow.BOARD)
