// One task for each slide: nextflow run main.nf --slides 'slides/*.svs' --masks masks
params.slides = 'slides/*.svs'
params.masks = 'masks'

process SEGMENT {
    publishDir params.masks, mode: 'move', saveAs: { "${slide.baseName}.tif" }
    cpus 8
    memory '8 GB'

    input:
    path slide

    output:
    path 'mask.tif'

    script:
    """
    OMP_NUM_THREADS=${task.cpus} gsd segment ${slide} -o mask.tif --max-memory 6G
    """
}

workflow {
    SEGMENT(channel.fromPath(params.slides))
}
